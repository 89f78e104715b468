"""Numbers as people read them: percent, bytes, seconds, epsilon."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from fedfuse_ray.accounts.totals import Guarantee, Total
from fedfuse_ray.accounts.units import RECORD
from fedfuse_ray.report.schema import PrivacySummary

ABSENT = "–"  # noqa: RUF001, an en dash is the typographer's sign for an empty cell

_BYTE_UNITS = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def percent(value: float | None, digits: int = 1) -> str:
    """Return a fraction as percent: 0.8749 is '87.5%'."""
    return ABSENT if value is None else f"{100 * value:.{digits}f}%"


def byte_unit(largest: float) -> tuple[str, float]:
    """Return the decimal unit in which `largest` bytes reads best, and its size in bytes."""
    for name, size in _BYTE_UNITS:
        if largest >= size:
            return name, size
    return "bytes", 1.0


def human_bytes(value: float | None) -> str:
    """Return bytes in decimal units with three significant digits: '5.70 MB'."""
    if value is None:
        return ABSENT
    name, size = byte_unit(value)
    scaled = value / size
    if size == 1.0:
        return f"{value:.0f} bytes"
    return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f} {name}"


def second_unit(largest: float) -> tuple[str, float]:
    """Return the unit in which `largest` seconds reads best, and its size in seconds."""
    if largest >= 3 * 3600:
        return "hours", 3600.0
    return ("minutes", 60.0) if largest >= 10 * 60 else ("seconds", 1.0)


def human_seconds(value: float | None) -> str:
    """Return seconds as '0.42 s', '12.3 s', '4 min 05 s' or '2 h 10 min'."""
    if value is None:
        return ABSENT
    if value < 99.95:
        return f"{value:.2f} s" if value < 9.995 else f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def epsilon(privacy: PrivacySummary) -> str:
    """Return the guarantee's epsilon, or 'not private'."""
    if not privacy.private or privacy.epsilon is None:
        return "not private"
    value = privacy.epsilon
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def records_total(runs: Iterable[PrivacySummary]) -> str:
    """Return on a line what all runs on the same records come to, "" where no account was kept.

    Of several runs the one that ended last knew of all others, so its total is the largest.
    """
    told = list(runs)
    private = [run for run in told if run.private and run.total_runs]
    unprotected = max((run.unprotected_runs for run in told), default=0)
    largest = max(private, key=lambda run: run.total_epsilon or math.inf, default=None)
    if largest is None:
        guarantee = Guarantee(RECORD, 0.0)
        found = Total(None, guarantee, 0, unprotected)
        return f"Total for these records: {found.warning}" if found.warning else ""
    guarantee = Guarantee(largest.unit or RECORD, largest.delta or 0.0)
    found = Total(largest.total_epsilon, guarantee, largest.total_runs, unprotected)
    return f"Total for these records: {found.text}"


def times_fewer(reference: float, value: float) -> str | None:
    """Return how many times fewer bytes than the reference, or None where there is no saving."""
    if value <= 0 or reference <= value * 1.005:
        return None
    return f"{reference / value:.1f}x below fp32"


def plain(value: Any) -> str:
    """Return a table's cell: absent for None, three significant digits for floats."""
    if value is None:
        return ABSENT
    return f"{value:.3g}" if isinstance(value, float) else str(value)
