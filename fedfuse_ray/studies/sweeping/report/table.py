"""The table of all trials, which a reader can sort by any column."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape
from importlib import resources
from urllib.parse import quote

from fedfuse_ray.report.page import table
from fedfuse_ray.report.units import ABSENT, human_bytes, human_seconds, percent
from fedfuse_ray.studies.sweeping.config import Sweep
from fedfuse_ray.studies.sweeping.points import value_text
from fedfuse_ray.studies.sweeping.report.settings import labels, told
from fedfuse_ray.studies.sweeping.store import DONE, Row


def trials_table(sweep: Sweep, rows: Sequence[Row], front: Collection[str]) -> str:
    """Return the table with the script that sorts it; without the script it is a plain table.

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
    body = [
        (
            _link(place, row),
            escape(row.status),
            *(told(row.values.get(name)) for name in words),
            *(_number(row.values[name], value_text(row.values[name])) for name in numbers),
            _number(row.accuracy, percent(row.accuracy), strong=row.trial in front),
            *(_number(score := (row.domains or {}).get(name), percent(score)) for name in domains),
            _number(row.epsilon, ABSENT if row.epsilon is None else f"{row.epsilon:.2f}"),
            _number(row.uplink_bytes, human_bytes(row.uplink_bytes)),
            _number(row.rounds, str(row.rounds)),
            _number(row.seconds, human_seconds(row.seconds)),
        )
        for place, row in enumerate(rows)
    ]
    shown = table(("trial", "status", *settings, *results), body, numbers=2 + len(words))
    script = resources.files("fedfuse_ray.studies.sweeping.report.assets") / "sorting.js"
    return (
        f'<div class="panel sortable">{shown}</div>'
        f"<script>{script.read_text(encoding='utf-8')}</script>"
    )


def _link(place: int, row: Row) -> str:
    """Return a trial's place; its name only repeats the settings beside it, so it is a tip."""
    shown = f'<span title="{escape(row.trial)}">{place:02d}</span>'
    if row.status == DONE:
        shown = f'<a href="trials/{quote(row.trial)}/report.html">{shown}</a>'
    return f'<td data-sort="{place}">{shown}</td>'


def _counts(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: float | None, shown: str, *, strong: bool = False) -> str:
    """Return a cell with the number that it is sorted by."""
    kind = "number best" if strong else "number"
    key = "" if value is None else repr(float(value))
    return f'<td class="{kind}" data-sort="{key}">{escape(shown)}</td>'
