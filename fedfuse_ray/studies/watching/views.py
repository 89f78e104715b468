"""A run so far, for the terminal: a bar, scores by domain over the rounds, institutions."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fedfuse_ray.report.rows import AS_PLANNED
from fedfuse_ray.report.units import ABSENT, human_bytes, human_seconds, percent
from fedfuse_ray.studies.watching.snapshot import Snapshot
from fedfuse_ray.terminal import bar, measures

_LEVELS = "▁▂▃▄▅▆▇█"
_WIDTH = 30
_SITES = 20
_RECENT = 5


def run_view(run: Snapshot) -> RenderableType:
    """Return a run so far."""
    parts: list[RenderableType] = [Text(run.title, style="bold"), Text(_state(run))]
    if run.rounds:
        parts += [_scores(run), _institutions(run)]
    return Group(*parts)


def round_lines(run: Snapshot) -> list[str]:
    """Return a line a round, as a job's log has it."""
    total = run.total or len(run.rounds)
    return [
        f"{bar(row['round'], total)} round {row['round']}/{total}"
        + measures(row["accuracy"], row["epsilon"], row["uplink_bytes"])
        for row in run.rounds
    ]


def sparkline(values: Sequence[float], width: int = _WIDTH) -> str:
    """Return the last values as bars between their smallest and their largest."""
    shown = list(values)[-width:]
    low, span = min(shown, default=0.0), max(shown, default=0.0) - min(shown, default=0.0)
    top = len(_LEVELS) - 1
    return "".join(_LEVELS[round(top * (v - low) / span) if span else 0] for v in shown)


def state_text(run: Snapshot) -> str:
    """Return how far a run is, on a few words."""
    if run.ended:
        return "done"
    if not run.total:
        return "participants train apart"
    return f"round {run.done}/{run.total}" if run.done else "starting"


def _state(run: Snapshot) -> str:
    if not run.rounds:
        return state_text(run)
    total = run.total or len(run.rounds)
    recent = fmean(row["seconds"] for row in run.rounds[-_RECENT:])
    text = f"{bar(run.done, total)} round {run.done}/{total}  {human_seconds(recent)} a round"
    if run.summary is not None:
        return f"{text}  ended after {human_seconds(run.summary.time.wall_seconds)}"
    return f"{text}  {human_seconds(recent * (total - run.done))} left"


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, show_edge=False
    )
    for index, name in enumerate(columns):
        table.add_column(name, justify="right" if index else "left", no_wrap=True)
    return table


def _scores(run: Snapshot) -> Table:
    table = _table("", "accuracy", "now", "best", "over the rounds")
    table.columns[-1].justify = "left"
    for name, values in run.scores().items():
        if values:
            now, best = percent(values[-1]), percent(max(values))
            table.add_row(Text(name), now, best, sparkline(values))
    return table


def _institutions(run: Snapshot) -> Table:
    sent = sum(site.uplink_bytes for site in run.sites)
    table = _table(
        f"{len(run.sites)} institutions, {human_bytes(sent)} sent up",
        "institution",
        "domain",
        _epsilon_heading(run),
        "uplink",
        "last round",
        "missed",
    )
    # Who missed rounds stands first; the sort keeps the institutions' order otherwise.
    for site in sorted(run.sites, key=lambda site: -site.missed)[:_SITES]:
        table.add_row(
            Text(site.name),
            Text(site.domain),
            ABSENT if site.epsilon is None else f"{site.epsilon:.2f}",
            human_bytes(site.uplink_bytes),
            Text(site.status or ABSENT, style="" if site.status in AS_PLANNED else "bold"),
            f"{site.missed or ABSENT}",
        )
    if len(run.sites) > _SITES:
        table.caption = f"and {len(run.sites) - _SITES} more, who missed no more rounds"
        table.caption_justify = "left"
    return table


def _epsilon_heading(run: Snapshot) -> str:
    spent = [site.epsilon for site in run.sites if site.epsilon is not None]
    if not spent:
        return "ε"
    return f"ε of {run.target:g}" if run.target is not None else f"ε, at most {max(spent):.2f}"
