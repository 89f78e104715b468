"""The table of all trials, which a reader can sort by any column."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from urllib.parse import quote

from fedfuse_ray.report.page import Cell, Panel, Table
from fedfuse_ray.report.units import ABSENT, human_bytes, human_seconds, percent
from fedfuse_ray.studies.sweeping.config import Sweep
from fedfuse_ray.studies.sweeping.points import value_text
from fedfuse_ray.studies.sweeping.report.settings import labels
from fedfuse_ray.studies.sweeping.store import DONE, Row


def trials_table(sweep: Sweep, rows: Sequence[Row], front: Collection[str]) -> Panel:
    """Return the table, which a script sorts; without the script it is a plain table.

    Args:
        sweep: For the settings' order.
        rows: All trials, in the order to begin with.
        front: Names of the trials on the Pareto front, which are set bold.
    """
    named = labels(sweep)
    # Columns of text stand before those of numbers, which are set to the right.
    words = [name for name in named if not all(_counts(row.values.get(name)) for row in rows)]
    numbers = [name for name in named if name not in words]
    domains = list(dict.fromkeys(name for row in rows for name in row.domains or {}))
    settings = [named[name] for name in (*words, *numbers)]
    results = ("overall", *domains, "epsilon", "uplink", "rounds run", "time")
    body: list[tuple[str | Cell, ...]] = [
        (
            _link(place, row),
            row.status,
            *(value_text(row.values.get(name)) for name in words),
            *(_number(row.values[name], value_text(row.values[name])) for name in numbers),
            _number(row.accuracy, percent(row.accuracy), best=row.trial in front),
            *(_number(score := (row.domains or {}).get(name), percent(score)) for name in domains),
            _number(row.epsilon, ABSENT if row.epsilon is None else f"{row.epsilon:.2f}"),
            _number(row.uplink_bytes, human_bytes(row.uplink_bytes)),
            _number(row.rounds, str(row.rounds)),
            _number(row.seconds, human_seconds(row.seconds)),
        )
        for place, row in enumerate(rows)
    ]
    head = ("trial", "status", *settings, *results)
    return Panel([Table(head, body, numbers=2 + len(words), sortable=True)])


def _link(place: int, row: Row) -> Cell:
    """Return a trial's place; its name only repeats the settings beside it, so it is a tip."""
    href = f"trials/{quote(row.trial)}/report.html" if row.status == DONE else ""
    return Cell(f"{place:02d}", tip=row.trial, href=href, sort=str(place))


def _counts(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: float | None, shown: str, *, best: bool = False) -> Cell:
    """Return a cell with the number that it is sorted by."""
    return Cell(shown, sort="" if value is None else repr(float(value)), best=best)
