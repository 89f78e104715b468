"""`python -m fedfuse_ray run`: one experiment, to its result folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedfuse_ray.commands import options
from fedfuse_ray.runs.reading import read_experiment, read_resumed
from fedfuse_ray.stopping import resumable
from fedfuse_ray.terminal import TerminalProgress, output, results_line, say


def run_command(
    source: options.Source = "demo",
    data: options.Manifest = None,
    paradigm: options.ParadigmName = None,
    settings: options.Settings = None,
    executor: options.ExecutorKind = None,
    seed: options.Seed = None,
    out: options.Out = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Continue an interrupted run.")
    ] = None,
    account: options.Account = None,
    budget: options.Budget = None,
    no_progress: options.NoProgress = False,
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
    from fedfuse_ray.accounts.terms import AccountTerms
    from fedfuse_ray.report import run_table
    from fedfuse_ray.report.units import records_total
    from fedfuse_ray.runs.running import run
    from fedfuse_ray.runs.sealing import read_seal

    terms = AccountTerms(account, budget)
    with (
        resumable("python -m fedfuse_ray run", folder, "config.yaml"),
        TerminalProgress(quiet=no_progress) as progress,
    ):
        progress.stage(results_line(folder))
        summary = run(
            experiment, folder, resume=resume is not None, progress=progress, account=terms
        )
    output().print(run_table(summary))
    say(records_total([summary.privacy]), on_one_line=True)
    if summary.privacy.warning:
        say(f"Warning: {summary.privacy.warning}")
    print(f"weights_sha256: {summary.weights_sha256}")
    print(f"signed by: {read_seal(folder).fingerprint}")
    say(f"Report: {folder / 'report.html'}")
