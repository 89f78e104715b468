"""`python -m fedfuse_ray compare`: paradigms, or the related work's systems, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedfuse_ray.commands import options
from fedfuse_ray.errors import InputError
from fedfuse_ray.runs.reading import paradigm_names, read_experiment
from fedfuse_ray.stopping import resumable
from fedfuse_ray.terminal import TerminalProgress, output, results_line, say

if TYPE_CHECKING:
    from fedfuse_ray.accounts.terms import AccountTerms
    from fedfuse_ray.config import Experiment


def compare_command(
    source: options.Source = "demo",
    data: options.Manifest = None,
    paradigms: Annotated[
        str | None, typer.Option(metavar="p1,p2", help="Which paradigms; default all.")
    ] = None,
    settings: options.Settings = None,
    executor: options.ExecutorKind = None,
    seed: options.Seed = None,
    out: options.Out = None,
    systems: Annotated[
        str | None,
        typer.Option(metavar="table1|s1,s2", help="The related work's systems, not paradigms."),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Finish an interrupted table of systems.")
    ] = None,
    account: options.Account = None,
    budget: options.Budget = None,
    no_progress: options.NoProgress = False,
) -> None:
    """Run several paradigms, or systems of the related work, and put them in one table."""
    from fedfuse_ray.accounts.terms import AccountTerms

    others: dict[str, object] = {"--data": data, "--paradigms": paradigms, "--executor": executor}
    others |= {"--budget": budget}
    if resume is not None:
        others |= {"--systems": systems, "--set": settings, "--seed": seed, "--out": out}
        _check_alone("--resume", resume, others)
        return _run_systems(resume, AccountTerms(account), quiet=no_progress)
    if systems is not None:
        _check_alone("--systems", systems, others)
        seeded = () if seed is None else (f"seed={seed}",)
        folder = _begin_systems(systems, source, (*(settings or ()), *seeded), out)
        return _run_systems(folder, AccountTerms(account), quiet=no_progress)
    experiments = [
        read_experiment(
            source, data=data, settings=settings, seed=seed, paradigm=name, executor=executor
        )
        for name in paradigm_names(paradigms)
    ]
    folder = out or Path("runs") / f"{experiments[0].preset}-comparison"
    _compare_paradigms(experiments, folder, AccountTerms(account, budget), quiet=no_progress)


def _compare_paradigms(
    experiments: list[Experiment], folder: Path, terms: AccountTerms, *, quiet: bool
) -> None:
    from fedfuse_ray.report import comparison_table
    from fedfuse_ray.report.units import records_total
    from fedfuse_ray.runs.comparing import compare
    from fedfuse_ray.runs.sealing import read_seal

    with TerminalProgress(quiet=quiet) as progress:
        progress.stage(results_line(folder))
        comparison = compare(experiments, folder, progress=progress, account=terms)
    output().print(comparison_table(comparison))
    say(records_total(s.privacy for s in comparison.values()), on_one_line=True)
    for name, summary in comparison.items():
        if summary.privacy.warning:
            say(f"Warning, {name}: {summary.privacy.warning}")
    for name in comparison:
        print(f"{name} signed by: {read_seal(folder / name).fingerprint}")
    say(f"Report: {folder / 'report.html'}")


def _check_alone(option: str, value: object, others: Mapping[str, object]) -> None:
    """Refuse options that don't go with another one.

    Raises:
        InputError: One was given.
    """
    for name, given in others.items():
        if given not in (None, []):
            raise InputError(name, given, f"does not go with {option} {value}; leave it out")


def _begin_systems(listed: str, root: str, settings: tuple[str, ...], out: Path | None) -> Path:
    """Lay a table's folder out and return it.

    Raises:
        InputError: A system, a setting or the folder can't be used.
    """
    from fedfuse_ray.studies.related import running

    folder = out or Path("runs") / f"{Path(root).stem}-systems"
    running.begin(running.Asked(running.chosen(listed), root, settings), folder)
    return folder


def _run_systems(folder: Path, terms: AccountTerms, *, quiet: bool) -> None:
    """Run a table's systems, or those that are left, and write its page.

    Raises:
        FedfuseError: A run failed.
    """
    from fedfuse_ray.report.grids import as_rich
    from fedfuse_ray.studies.related import running
    from fedfuse_ray.studies.related.output import write_pages
    from fedfuse_ray.studies.related.tables import columns, measures
    from fedfuse_ray.studies.sweeping.account import begin, total_line
    from fedfuse_ray.studies.sweeping.live import LiveTable

    running.begun(folder)  # nothing is begun in a folder that holds no table
    begin(folder, terms)
    resuming = resumable("python -m fedfuse_ray compare", folder, "sweep.yaml")
    with resuming, LiveTable([], quiet=quiet) as live:
        found = running.run(folder, live)
    page = write_pages(folder)
    for grid in (columns(found), measures(found)):
        output().print(as_rich(grid))
    for row in found.rows:
        if row.missing:
            say(f"{row.system}: {row.missing}")
    say(total_line(folder), on_one_line=True)
    say(f"Report: {page}")
