"""A sweep's table, summary and pages, from its trials' folders."""

from __future__ import annotations

from pathlib import Path

from fedfuse_ray.accounts.totals import as_json
from fedfuse_ray.files import write_json
from fedfuse_ray.report import write_run_report
from fedfuse_ray.report.reading import read_json
from fedfuse_ray.studies.sweeping.account import total_for
from fedfuse_ray.studies.sweeping.config import Sweep
from fedfuse_ray.studies.sweeping.report import write_sweep_report
from fedfuse_ray.studies.sweeping.store import DONE, Row, SweepStore
from fedfuse_ray.studies.sweeping.summary import Selection, select, summarise

_SUMMARY, _TOTAL = "summary.json", "total"


def write_folder(sweep: Sweep, folder: Path, seconds: float) -> tuple[list[Row], Selection]:
    """Write a sweep's table, summary and page."""
    store = SweepStore(folder)
    rows = store.rows()
    store.write_table(rows)
    selection = select(sweep, store, rows)
    total = total_for(store.folder)
    told = {} if total is None else {_TOTAL: {**as_json(total), "text": total.text}}
    write_json(store.folder / _SUMMARY, summarise(sweep, rows, selection, seconds) | told)
    write_sweep_report(store.folder, sweep, rows, selection, _line(store.folder))
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
    selection = select(sweep, store, rows)
    return write_sweep_report(store.folder, sweep, rows, selection, _line(store.folder))


def _line(folder: Path) -> str:
    """Return what the summary says of the total for the trials' records, for people."""
    path = folder / _SUMMARY
    told = read_json(path).get(_TOTAL) if path.is_file() else None
    return f"Total for these records: {told['text']}" if told else ""
