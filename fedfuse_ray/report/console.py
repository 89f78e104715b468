"""The same numbers for the terminal, as rich tables."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.table import Table
from rich.text import Text

from fedfuse_ray.report import protection
from fedfuse_ray.report.comparison import relative_to_centralized
from fedfuse_ray.report.figures.comparison import domains_of
from fedfuse_ray.report.schema import OVERALL, Summary
from fedfuse_ray.report.units import (
    ABSENT,
    epsilon,
    human_bytes,
    human_seconds,
    percent,
    times_fewer,
)


def run_table(summary: Summary) -> Table:
    """Return a run's scores by domain, and below them its privacy, bytes and seconds."""
    title = f"{summary.paradigm} on {summary.preset}, seed {summary.seed}"
    result = Table(title=Text(title), title_justify="left", title_style="bold")
    result.add_column("", no_wrap=True)
    result.add_column("accuracy", justify="right")
    result.add_column("macro-F1", justify="right")
    for name in (OVERALL, *summary.domains):
        style = "bold" if name == OVERALL else ""
        f1 = percent(summary.macro_f1.get(name))
        result.add_row(Text(name), percent(summary.accuracy[name]), f1, style=style)
    result.add_section()
    for name, value, note in _costs(summary):
        result.add_row(name, value, note)
    return result


def comparison_table(comparison: Mapping[str, Summary]) -> Table:
    """Return the paradigms, a row each; the best of each score is bold.

    Uplink is a round's, over all institutions; time is the whole run's.
    """
    domains = domains_of(comparison)
    result = Table(
        title="Paradigms compared",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )
    result.add_column("paradigm", no_wrap=True)
    # In a narrow terminal the headings fold, never the numbers.
    scores = [(name, 6) for name in (OVERALL, *domains)]
    for name, width in (*scores, ("% of central", 7), ("ε", 5), ("uplink", 7), ("time", 6)):
        result.add_column(Text(name), justify="right", overflow="fold", min_width=width)
    best = {
        key: max((s.accuracy.get(key, -1.0) for s in comparison.values()), default=-1.0)
        for key in (OVERALL, *domains)
    }
    for paradigm, summary in comparison.items():
        row = [
            Text(percent(value), style="bold" if value == top else "")
            for key, top in best.items()
            for value in (summary.accuracy.get(key),)
        ]
        result.add_row(
            Text(paradigm),
            *row,
            percent(relative_to_centralized(comparison, paradigm)),
            epsilon(summary.privacy) if summary.privacy.private else ABSENT,
            human_bytes(summary.communication.uplink_bytes_per_round or None),
            human_seconds(summary.time.wall_seconds),
        )
    return result


def _costs(summary: Summary) -> list[tuple[str, str, str]]:
    privacy, sent, time = summary.privacy, summary.communication, summary.time
    at = (
        f"at delta {privacy.delta:g}, per {privacy.unit}"
        if privacy.private and privacy.delta is not None
        else ""
    )
    told = epsilon(privacy)
    rows = [("epsilon" if privacy.private else "privacy", told, at)]
    if privacy.private:
        rows.append(("scores", privacy.scores or "shown", protection.told(privacy)))
    if summary.rounds:
        saving = times_fewer(sent.fp32_uplink_bytes_per_round, sent.uplink_bytes_per_round)
        rows += [
            ("uplink a round", human_bytes(sent.uplink_bytes_per_round), saving or sent.codec),
            ("time a round", human_seconds(time.seconds_per_round), f"{summary.rounds} rounds"),
        ]
    start = f"{human_seconds(time.startup_seconds)} to start"
    return [*rows, ("time in all", human_seconds(time.wall_seconds), start)]
