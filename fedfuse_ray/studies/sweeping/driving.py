"""Trials brought to their end on Ray while somebody watches, for a sweep and a reproduction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fedfuse_ray.accounts.terms import AccountTerms
from fedfuse_ray.errors import FedfuseError
from fedfuse_ray.studies.sweeping.account import begin, is_begun, refused
from fedfuse_ray.studies.sweeping.config import Sweep
from fedfuse_ray.studies.sweeping.live import LiveTable
from fedfuse_ray.studies.sweeping.store import (
    FAILED,
    MISSING,
    REFUSED,
    STOPPED,
    Row,
    SweepStore,
    read_row,
)

_VANISHED = "its process ended, or --out is not on storage that all nodes share"


def drive(sweep: Sweep, store: SweepStore, names: Sequence[str], live: LiveTable) -> None:
    """Run trials, show them, and keep `trials.parquet` as new as they are.

    Raises:
        ResourceError: No node has room for a trial.
    """
    from fedfuse_ray.studies.sweeping.on_ray import (
        trials as on_ray,  # ray, which nothing else here needs
    )

    if not is_begun(store.folder):
        begin(store.folder, AccountTerms())
    rows = {row.trial: row for row in store.rows()}
    ended: set[str] = set()

    def tell(state: on_ray.TrialState) -> None:
        if not state.ended:
            live.advanced(state.name, state.round, state.total, state.accuracy)
        elif state.name not in ended:
            ended.add(state.name)
            row = read_row(store.trials / state.name)
            if row.status == MISSING and refused(store.folder):
                live.ended(replace(row, status=REFUSED))
                return
            if row.status == MISSING:  # given up just now; its process has yet to write that down
                row = replace(row, status=STOPPED, accuracy=state.accuracy, rounds=state.round)
            rows[row.trial] = row
            live.ended(row)
            store.write_table(sorted(rows.values(), key=lambda row: row.index))

    try:
        on_ray.run_trials(sweep, store, names, tell)
    finally:
        on_ray.disconnect()


def check_within_budget(rows: Sequence[Row], folder: Path) -> None:
    """Say that a sweep has stopped because its budget is spent.

    Raises:
        FedfuseError: It has; what has ended is kept.
    """
    if why := refused(folder):
        left = sum(row.status == MISSING for row in rows)
        raise FedfuseError(
            f"--budget: {why}. {left} of {len(rows)} trials were not run, the others are kept; "
            f"continue with --resume {folder} and a greater --budget"
        )


def check_complete(rows: Sequence[Row], folder: Path, what: str) -> None:
    """Refuse to go on where trials have no result.

    Raises:
        FedfuseError: Some have none; names the first, and its error.
    """
    if broken := [row for row in rows if row.status in (FAILED, MISSING)]:
        first = broken[0]
        why = (first.error.strip().splitlines() or [_VANISHED])[-1]
        raise FedfuseError(
            f"{len(broken)} of {len(rows)} {what} have no result, the first of them "
            f"{first.trial}: {why}. Continue with --resume {folder}"
        )
