"""`python -m fedfuse_ray.sweep FILE.yaml`: federations over a space of settings."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedfuse_ray.commands.options import (
    Account,
    Budget,
    NoProgress,
    Out,
    check_resumed_alone,
)
from fedfuse_ray.errors import InputError
from fedfuse_ray.stopping import resumable
from fedfuse_ray.terminal import output, results_line, say

if TYPE_CHECKING:
    from fedfuse_ray.accounts.terms import AccountTerms
    from fedfuse_ray.studies.sweeping.config import Sweep
    from fedfuse_ray.studies.sweeping.store import Row, SweepStore

_ADAPTIVE = ("asha", "optuna")


def sweep_command(
    source: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A sweep file; see tune_configs/.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="a.b=c", help="Override a setting of the sweep or its base."),
    ] = None,
    out: Out = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Finish an interrupted sweep.")
    ] = None,
    account: Account = None,
    budget: Budget = None,
    no_progress: NoProgress = False,
) -> None:
    """Run a sweep, and write its table of trials, its Pareto front and what choosing costs."""
    from fedfuse_ray.accounts.terms import AccountTerms
    from fedfuse_ray.studies.sweeping.account import begin

    terms = AccountTerms(account, budget)
    if resume is not None:
        check_resumed_alone(resume, "a sweep", source, settings, out)
        sweep, store = _continued(resume)
    else:
        if source is None:
            raise InputError("FILE", "", "name a sweep file, as tune_configs/smoke.yaml")
        folder = out or Path("runs") / f"sweep-{source.stem}"
        sweep, store = _begun(source, settings or [], folder, terms)
    begin(store.folder, terms)
    _run_trials(sweep, store, quiet=no_progress)


def _continued(folder: Path) -> tuple[Sweep, SweepStore]:
    from fedfuse_ray.studies.sweeping.store import SweepStore
    from fedfuse_ray.studies.sweeping.tracking import check_extras

    store = SweepStore(folder)
    sweep = store.read()
    check_extras(sweep)
    return sweep, store


def _begun(
    source: Path, settings: list[str], folder: Path, terms: AccountTerms
) -> tuple[Sweep, SweepStore]:
    """Validate every point, then lay the folder out; Ray has not been started yet."""
    from fedfuse_ray.studies.sweeping.account import check_points
    from fedfuse_ray.studies.sweeping.loading import load_sweep
    from fedfuse_ray.studies.sweeping.points import check_scores, expand
    from fedfuse_ray.studies.sweeping.store import SweepStore
    from fedfuse_ray.studies.sweeping.tracking import check_extras

    sweep, store = load_sweep(source, settings), SweepStore(folder)
    check_extras(sweep)
    points = expand(sweep)
    check_scores(sweep, points)
    check_points([(p.experiment, store.trials / p.name) for p in points], store.folder, terms)
    store.start(sweep, points)
    return sweep, store


def _run_trials(sweep: Sweep, store: SweepStore, *, quiet: bool) -> None:
    from fedfuse_ray.studies.sweeping.driving import drive
    from fedfuse_ray.studies.sweeping.live import LiveTable
    from fedfuse_ray.studies.sweeping.output import write_folder

    began = time.perf_counter()
    # A search that learns is told of ended trials too; they end again at once.
    names = store.names() if sweep.search.kind in _ADAPTIVE else store.missing()
    count = sweep.search.trials if sweep.search.kind == "optuna" else len(names)
    resuming = resumable("python -m fedfuse_ray.sweep", store.folder, "sweep.yaml")
    with resuming, LiveTable(store.rows(), total=count, quiet=quiet) as live:
        if count:
            live.say(results_line(store.folder))
            live.say(f"{count} trials to run")
            drive(sweep, store, names, live)
    rows, selection = write_folder(sweep, store.folder, time.perf_counter() - began)
    _print_result(sweep, store, rows, selection.text)


def _print_result(sweep: Sweep, store: SweepStore, rows: list[Row], selection: str) -> None:
    from fedfuse_ray.studies.sweeping.account import total_line
    from fedfuse_ray.studies.sweeping.driving import check_complete, check_within_budget
    from fedfuse_ray.studies.sweeping.live import point_text, result_table
    from fedfuse_ray.studies.sweeping.summary import best, pareto

    output().print(result_table(rows, pareto(rows, sweep.objectives)))
    if (chosen := best(rows, sweep.objectives)) is not None:
        say(f"Best: {point_text(chosen)}")
    say(selection, on_one_line=True)
    say(total_line(store.folder), on_one_line=True)
    say(f"Report: {store.folder / 'report.html'}")
    check_within_budget(rows, store.folder)
    check_complete(rows, store.folder, "trials")
