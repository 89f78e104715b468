"""What differed between trials, as the charts' axes and legends name it."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from fedfuse_ray.report.theme import bold, lines, text
from fedfuse_ray.report.units import byte_unit, percent
from fedfuse_ray.studies.sweeping.config import Sweep
from fedfuse_ray.studies.sweeping.points import value_text
from fedfuse_ray.studies.sweeping.store import Row

SEED = "seed"
NOT_PRIVATE = "not private"
_WIDTH = 16  # characters of a label's line
_MOST_TICKS = 7


@dataclass(frozen=True)
class Setting:
    """A setting that has more than one value among the trials.

    Attributes:
        name: Dotted.
        label: Its last part, or all of it where that alone is ambiguous.
        values: The values that occur: those listed in the sweep file in its order, others rising.
        listed: The file lists them; else they were drawn from an interval.
        log: They were drawn evenly by their logarithm.
    """

    name: str
    label: str
    values: tuple[Any, ...]
    listed: bool
    log: bool

    def place(self, row: Row) -> int:
        """Return which of `values` a trial has."""
        return [key(value) for value in self.values].index(key(row.values[self.name]))


def varying(sweep: Sweep, rows: Sequence[Row]) -> list[Setting]:
    """Return the settings that differ between trials, in the sweep file's order."""
    found = []
    for name, label in labels(sweep).items():
        axis = sweep.space[name]
        present = {key(row.values[name]): row.values[name] for row in rows if name in row.values}
        if len(present) < 2:
            continue
        listed = [key(value) for value in axis.values]
        known = [present.pop(one) for one in listed if one in present]
        # A sweep that was resumed with another file may hold values that this one does not list.
        values = (*known, *(present[one] for one in sorted(present, key=_rising)))
        found.append(Setting(name, label, values, bool(axis.values), axis.kind == "loguniform"))
    return found


def labels(sweep: Sweep) -> dict[str, str]:
    """Return each setting's last part, or all of its name where that alone is ambiguous."""
    last = {name: name.rpartition(".")[2] for name in sweep.space}
    often = Counter(last.values())
    return {name: name if often[short] > 1 else short for name, short in last.items()}


def key(value: Any) -> str:
    """Return what tells a value from others; 1 and 1.0 are the same."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(float(value))
    return json.dumps(value, sort_keys=True)


def told(value: Any) -> str:
    """Return a setting's value for a chart."""
    return text(value_text(value))


def folded(label: str) -> str:
    """Return a label, on as many lines as it needs; names break after dots and underscores."""
    breakable = label.replace("_", "_ ").replace(".", ". ") if " " not in label else label
    broken = wrap(breakable, _WIDTH, break_long_words=False)
    return lines(line.replace("_ ", "_").replace(". ", ".") for line in broken)


def described(row: Row) -> str:
    """Return a trial as the lines that a pointer on it shows."""
    return lines(
        [
            bold(text(row.trial)),
            *(f"{text(name)}: {told(value)}" for name, value in row.values.items()),
            f"accuracy {percent(row.accuracy)}, {epsilon_text(row.epsilon)}, "
            f"{tick_bytes(row.uplink_bytes)} up",
        ]
    )


def epsilon_text(value: float | None) -> str:
    """Return 'epsilon 4' or 'not private'."""
    return NOT_PRIVATE if value is None else f"epsilon {value:.3g}"


def tick_epsilon(value: float) -> str:
    """Return an epsilon as briefly as an axis wants it: 7.99 is '8'."""
    return f"{value:.2g}" if value < 100 else f"{value:,.0f}"


def tick_bytes(value: float | None) -> str:
    """Return bytes as briefly as an axis wants them: '200 kB'."""
    if value is None:
        return "no bytes"
    unit, size = byte_unit(value)
    return f"{value / size:.3g} {unit}"


def log_ticks(values: Sequence[float], tell: Callable[[float], str]) -> dict[str, Any]:
    """Return an axis by logarithm whose ticks are round numbers, each once.

    Args:
        values: What is drawn, all above 0.
        tell: The text of a tick.
    """
    low, high = min(values), max(values)
    distinct = sorted({float(f"{value:.3g}") for value in values})
    if len(distinct) <= _MOST_TICKS and all(
        above > 1.3 * below for below, above in itertools.pairwise(distinct)
    ):
        ticks = distinct  # the very values that the sweep asked for
    else:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        fine = [step * 10.0**decade for decade in decades for step in (1, 2, 3, 5)]
        inside = [tick for tick in fine if 0.95 * low <= tick <= 1.05 * high]
        coarse = [tick for tick in inside if f"{tick:e}".startswith("1")]
        ticks = coarse if len(inside) > _MOST_TICKS and len(coarse) > 1 else inside
        ticks = ticks if len(ticks) > 1 else [low, high]
    return {"type": "log", "tickvals": ticks, "ticktext": [tell(tick) for tick in ticks]}


def _rising(one: str) -> tuple[bool, float, str]:
    try:
        return False, float(one), one
    except ValueError:
        return True, 0.0, one
