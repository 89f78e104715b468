"""Result folders, whatever wrote them: a run, a comparison, a sweep."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

from rich import box
from rich.console import Group
from rich.table import Table

from fedfuse_ray.config import Paradigm
from fedfuse_ray.errors import InputError
from fedfuse_ray.report.console import comparison_table
from fedfuse_ray.report.store import read_comparison
from fedfuse_ray.report.units import percent
from fedfuse_ray.studies.sweeping.live import live_table, trial_line
from fedfuse_ray.studies.sweeping.store import MISSING, SweepStore
from fedfuse_ray.studies.watching.look import Look
from fedfuse_ray.studies.watching.snapshot import Snapshot, read_snapshot
from fedfuse_ray.studies.watching.views import round_lines, run_view, state_text


def look_at_folder(folder: Path) -> Callable[[], Look]:
    """Return what looks at a result folder.

    Raises:
        InputError: There is no such folder, or nothing was started in it.
    """
    if not folder.is_dir():
        raise InputError("DIR", folder, "no such folder; name a run's, a comparison's or a sweep's")
    if (folder / "sweep.yaml").is_file():
        return lambda: _look_at_sweep(folder)
    if (folder / "config.yaml").is_file():
        return lambda: _look_at_run(folder)
    if (folder / "comparison.json").is_file() or _paradigms(folder):
        return lambda: _look_at_comparison(folder)
    raise InputError("DIR", folder, "no run, comparison or sweep was started there")


def _look_at_run(folder: Path) -> Look:
    run = read_snapshot(folder)
    return Look(run_view(run), tuple(round_lines(run)), run.ended)


def _look_at_comparison(folder: Path) -> Look:
    # Read first: whoever sees the comparison finds every run in it.
    path = folder / "comparison.json"
    compared = read_comparison(folder) if path.is_file() else None
    runs = {name: read_snapshot(folder / name) for name in _paradigms(folder)}
    lines = tuple(f"{name}: {line}" for name, run in runs.items() for line in round_lines(run))
    if compared is not None:
        return Look(comparison_table(compared), lines, True)
    running = [run_view(run) for run in runs.values() if not run.ended]
    return Look(Group(_paradigm_table(runs), *running), lines, False)


def _paradigms(folder: Path) -> list[str]:
    """Return the paradigms that have begun, in the order in which they did."""
    begun = [name for name in get_args(Paradigm) if (folder / name / "config.yaml").is_file()]
    return sorted(begun, key=lambda name: (folder / name / "config.yaml").stat().st_mtime)


def _paradigm_table(runs: dict[str, Snapshot]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("paradigm")
    table.add_column("state")
    table.add_column("accuracy", justify="right")
    for name, run in runs.items():
        scores = run.scores()["overall"]
        final = run.summary.accuracy["overall"] if run.summary else None
        table.add_row(name, state_text(run), percent(final or (scores[-1] if scores else None)))
    return table


def _look_at_sweep(folder: Path) -> Look:
    ended = (folder / "summary.json").is_file()
    store = SweepStore(folder)
    rows = store.rows()
    running: dict[str, str] = {}
    for row in rows:
        trial = store.trials / row.trial
        if row.status == MISSING and not ended and (trial / "config.yaml").is_file():
            run = read_snapshot(trial)
            scores = run.scores()["overall"]
            if run.done:
                running[row.trial] = f"{state_text(run)}  {percent(scores[-1] if scores else None)}"
    told = sorted((r for r in rows if r.status != MISSING), key=lambda row: row.ended or 0.0)
    return Look(live_table(rows, running), tuple(trial_line(row) for row in told), ended)
