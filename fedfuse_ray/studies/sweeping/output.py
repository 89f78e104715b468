"""A sweep's table, summary and pages, from its trials' folders."""

from __future__ import annotations

from pathlib import Path

from fedfuse_ray.files import write_json
from fedfuse_ray.report import write_run_report
from fedfuse_ray.studies.sweeping.config import Sweep
from fedfuse_ray.studies.sweeping.report import write_sweep_report
from fedfuse_ray.studies.sweeping.store import DONE, Row, SweepStore
from fedfuse_ray.studies.sweeping.summary import Selection, select, summarise


def write_folder(sweep: Sweep, folder: Path, seconds: float) -> tuple[list[Row], Selection]:
    """Write a sweep's table, summary and page."""
    store = SweepStore(folder)
    rows = store.rows()
    store.write_table(rows)
    selection = select(sweep, store, rows)
    write_json(store.folder / "summary.json", summarise(sweep, rows, selection, seconds))
    write_sweep_report(store.folder, sweep, rows, selection)
    return rows, selection


def rewrite_report(folder: Path) -> Path:
    """Write a sweep's page again, and those of its trials that ran to their end; return its path.

    Raises:
        InputError: A file of the folder is missing or broken.
    """
    store = SweepStore(folder)
    sweep, rows = store.read(), store.rows()
    for row in rows:
        if row.status == DONE:
            write_run_report(store.trials / row.trial)
    return write_sweep_report(store.folder, sweep, rows, select(sweep, store, rows))
