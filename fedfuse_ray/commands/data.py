"""`python -m fedfuse_ray data ...`: look at specimens, generate them, import them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedfuse_ray.commands.options import Seed, Settings
from fedfuse_ray.config import Experiment, PhantomData
from fedfuse_ray.errors import InputError
from fedfuse_ray.stopping import ending
from fedfuse_ray.terminal import output

app = typer.Typer(
    help="Look at specimens, generate them, import them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("describe")
@ending
def describe_command(
    source: Annotated[
        str, typer.Argument(metavar="[PRESET|FILE|MANIFEST]", help="Whose specimens.")
    ] = "demo",
    settings: Settings = None,
) -> None:
    """Count the specimens of every institution; a manifest is checked row by row."""
    from fedfuse_ray.runs.reading import read_experiment

    experiment = read_experiment(source, settings=settings)
    console = output()
    if isinstance(experiment.data, PhantomData):
        _print_index(console, experiment)
        return
    from fedfuse_ray.data.importers import check

    summary = check(experiment.data)
    console.print(f"{summary.path}: {summary.rows} images")
    counts = {
        name: (
            summary.specimens.get((name, "train"), 0),
            summary.specimens.get((name, "validation"), 0),
        )
        for name in summary.header.institutions
    }
    console.print(_institutions(summary.header.institutions, counts))
    tests = {d: summary.specimens.get((d, "test"), 0) for d in summary.header.domains}
    classes = {d: info.classes for d, info in summary.header.domains.items()}
    console.print(_domains(tests, classes))
    if summary.held_out:
        names = ", ".join(summary.held_out)
        console.print(f"15% of train held out for validation at: {names}")
    if held := sum(summary.header.held.values()):
        console.print(
            f"{held} test specimens at institutions: a private run is scored on the others alone, "
            "or with noise in a domain that has no others",
        )
    if summary.patients:
        said = ", ".join(f"{count:,} at {name}" for name, count in summary.patients.items())
        console.print(f"Patients of train: {said}")
    for shared, what in ((summary.shared, "specimens"), (summary.shared_patients, "patients")):
        if shared:
            console.print(
                f"{len(shared)} {what} at several institutions, as {shared[0]}: refused under "
                f"privacy of {'records' if what == 'specimens' else what}, unless "
                "privacy.institutions_per_unit charges them",
            )


@app.command("generate")
@ending
def generate_command(
    out: Annotated[Path, typer.Option(metavar="FILE.parquet", help="The manifest to write.")],
    source: Annotated[str, typer.Argument(metavar="[PRESET|FILE]")] = "demo",
    settings: Settings = None,
    seed: Seed = None,
) -> None:
    """Write generated specimens as a manifest with embedded images, which `--data` takes."""
    from fedfuse_ray.data.exporting import write_manifest
    from fedfuse_ray.data.phantoms import generate
    from fedfuse_ray.runs.reading import read_experiment

    if out.suffix != ".parquet":
        raise InputError("--out", out, "name a file that ends in .parquet")
    experiment = read_experiment(source, settings=settings, seed=seed)
    if not isinstance(experiment.data, PhantomData):
        raise InputError("PRESET", source, "reads a manifest; only phantoms can be generated")
    header, parts = generate(
        experiment.data, experiment.institutions, seed=experiment.seed, replicas=experiment.replicas
    )
    known = experiment.data.specimens_per_patient > 1
    rows = write_manifest(out, header, parts, patients=known)
    print(f"{out}: {rows} images")


@app.command("import")
@ending
def import_command(
    source: Annotated[
        Path, typer.Argument(help="A MedMNIST .npz, or domain/modality/label[/patient]/.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the manifest goes.")],
    institutions: Annotated[
        int, typer.Option(min=1, help="Institutions (of each domain) to deal the specimens to.")
    ],
    domain: Annotated[str | None, typer.Option(help="Domain of an .npz.")] = None,
    modality: Annotated[str | None, typer.Option(help="Modality of an .npz.")] = None,
    label_alpha: Annotated[
        float | None, typer.Option(help="Dirichlet label skew; small is skewed, none is IID.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
) -> None:
    """Make a manifest from other collections, dealt over institutions."""
    from fedfuse_ray.data.importers import import_to_manifest

    path = import_to_manifest(
        source,
        out,
        institutions=institutions,
        domain=domain,
        modality=modality,
        label_alpha=label_alpha,
        seed=seed,
        tell=print,
    )
    print(f"Manifest: {path}")
    print(f"Next: python -m fedfuse_ray run {path}")


def _print_index(console: Console, experiment: Experiment) -> None:
    from fedfuse_ray.data.dataset import prepare

    dataset = prepare(
        experiment.data, experiment.institutions, seed=experiment.seed, replicas=experiment.replicas
    )
    index = dataset.index
    owners = {name: (i.domain, i.modalities) for name, i in index.institutions.items()}
    counts = {name: (i.train, i.validation) for name, i in index.institutions.items()}
    console.print(_institutions(owners, counts))
    console.print(_domains(index.test, {d: info.classes for d, info in index.domains.items()}))
    console.print(f"Tables: {dataset.folder}")


def _institutions(
    owners: Mapping[str, tuple[str, tuple[str, ...]]], counts: Mapping[str, tuple[int, int]]
) -> Table:
    table = Table(title="Institutions", title_justify="left")
    for heading in ("institution", "domain", "modalities"):
        table.add_column(heading)
    for heading in ("train", "validation"):
        table.add_column(heading, justify="right")
    for name, (domain, modalities) in owners.items():
        train, validation = counts[name]
        table.add_row(
            Text(name), Text(domain), Text(", ".join(modalities)), f"{train:,}", f"{validation:,}"
        )
    table.add_section()
    totals = [sum(pair[i] for pair in counts.values()) for i in (0, 1)]
    table.add_row("all", "", "", *(f"{total:,}" for total in totals))
    return table


def _domains(tests: Mapping[str, int], classes: Mapping[str, tuple[str, ...]]) -> Table:
    table = Table(title="Test sets, shared by the consortium", title_justify="left")
    table.add_column("domain")
    table.add_column("specimens", justify="right")
    table.add_column("classes")
    for domain, count in tests.items():
        table.add_row(Text(domain), f"{count:,}", Text(", ".join(classes[domain])))
    return table
