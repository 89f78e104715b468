"""The command line: `python -m fedfuse_ray COMMAND`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from fedfuse_ray.commands.account import account_command
from fedfuse_ray.commands.audit import audit_command
from fedfuse_ray.commands.data import app as data_app
from fedfuse_ray.commands.preflight import preflight_command
from fedfuse_ray.commands.related import begin_systems, check_alone, run_systems
from fedfuse_ray.commands.report import report_command
from fedfuse_ray.commands.reproduce import reproduce_command
from fedfuse_ray.commands.verify import verify_command
from fedfuse_ray.commands.watch import watch_command
from fedfuse_ray.config import json_schema
from fedfuse_ray.runs.reading import paradigm_names, read_experiment, read_resumed
from fedfuse_ray.terminal import TerminalProgress, exit_status, output, results_line

app = typer.Typer(
    help="Simulate privacy-preserving federated cross-modal fusion in scientific imaging.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app, name="data")
app.command("account")(account_command)
app.command("reproduce")(reproduce_command)
app.command("audit")(audit_command)
app.command("preflight")(preflight_command)
app.command("report")(report_command)
app.command("verify")(verify_command)
app.command("watch")(watch_command)

Source = Annotated[
    str, typer.Argument(metavar="[PRESET|FILE]", help="A preset, a YAML file, or a manifest.")
]
Manifest = Annotated[
    Path | None, typer.Option("--data", metavar="MANIFEST", help="Your images, not the preset's.")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="a.b=c", help="Override a setting.")
]
Seed = Annotated[int | None, typer.Option(help="Root of every random stream.")]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="Result folder.")]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="Print the result only.")]
ExecutorKind = Annotated[
    Literal["ray", "serial"] | None, typer.Option(help="Actors, or all in this process.")
]


@app.command("run")
def run_command(
    source: Source = "demo",
    data: Manifest = None,
    paradigm: Annotated[str | None, typer.Option(help="What is trained.")] = None,
    settings: Settings = None,
    executor: ExecutorKind = None,
    seed: Seed = None,
    out: Out = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Continue an interrupted run.")
    ] = None,
    no_progress: NoProgress = False,
) -> None:
    """Run one experiment, and write its result folder with a report."""
    # Read before torch is imported, so that a mistake is told at once.
    if resume is not None:
        experiment = read_resumed(
            resume, settings=settings, seed=seed, paradigm=paradigm, executor=executor
        )
        folder = resume
    else:
        experiment = read_experiment(
            source, data=data, settings=settings, seed=seed, paradigm=paradigm, executor=executor
        )
        folder = out or Path("runs") / f"{experiment.preset}-{experiment.paradigm}"
    from fedfuse_ray.report import run_table
    from fedfuse_ray.runs import running
    from fedfuse_ray.runs.sealing import read_seal

    with TerminalProgress(quiet=no_progress) as progress:
        progress.stage(results_line(folder))
        summary = running.run(experiment, folder, resume=resume is not None, progress=progress)
    console = output()
    console.print(run_table(summary))
    print(f"weights_sha256: {summary.weights_sha256}")
    print(f"signed by: {read_seal(folder).fingerprint}")
    console.print(f"Report: {folder / 'report.html'}", markup=False, highlight=False)


@app.command("compare")
def compare_command(
    source: Source = "demo",
    data: Manifest = None,
    paradigms: Annotated[
        str | None, typer.Option(metavar="p1,p2", help="Which paradigms; default all.")
    ] = None,
    settings: Settings = None,
    executor: ExecutorKind = None,
    seed: Seed = None,
    out: Out = None,
    systems: Annotated[
        str | None,
        typer.Option(metavar="table1|s1,s2", help="The related work's systems, not paradigms."),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Finish an interrupted table of systems.")
    ] = None,
    no_progress: NoProgress = False,
) -> None:
    """Run several paradigms, or systems of the related work, and put them in one table."""
    named: dict[str, object] = {
        "--data": data,
        "--paradigms": paradigms,
        "--executor": executor,
    }
    if resume is not None:
        named |= {"--systems": systems, "--set": settings, "--seed": seed, "--out": out}
        check_alone("--resume", resume, named)
        return run_systems(resume, quiet=no_progress)
    if systems is not None:
        check_alone("--systems", systems, named)
        seeded = () if seed is None else (f"seed={seed}",)
        folder = begin_systems(systems, source, (*(settings or ()), *seeded), out)
        return run_systems(folder, quiet=no_progress)
    from fedfuse_ray.report import comparison_table
    from fedfuse_ray.runs.comparing import compare
    from fedfuse_ray.runs.sealing import read_seal

    experiments = [
        read_experiment(
            source, data=data, settings=settings, seed=seed, paradigm=name, executor=executor
        )
        for name in paradigm_names(paradigms)
    ]
    folder = out or Path("runs") / f"{experiments[0].preset}-comparison"
    with TerminalProgress(quiet=no_progress) as progress:
        progress.stage(results_line(folder))
        comparison = compare(experiments, folder, progress=progress)
    console = output()
    console.print(comparison_table(comparison))
    for name in comparison:
        print(f"{name} signed by: {read_seal(folder / name).fingerprint}")
    console.print(f"Report: {folder / 'report.html'}", markup=False, highlight=False)


@app.command("schema")
def schema_command() -> None:
    """Print the JSON schema of config files, for editors."""
    sys.stdout.write(json_schema())


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    return exit_status(lambda: app(arguments, standalone_mode=False))
