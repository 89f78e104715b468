"""Accuracy against epsilon, overall and by domain, with the spread over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from fedfuse_ray.report.schema import OVERALL
from fedfuse_ray.report.theme import BLUE, Mark, band, hover, layout, marks, text
from fedfuse_ray.report.units import percent
from fedfuse_ray.studies.sweeping.config import Sweep
from fedfuse_ray.studies.sweeping.report.settings import (
    NOT_PRIVATE,
    SEED,
    Setting,
    log_ticks,
    tick_epsilon,
    told,
    varying,
)
from fedfuse_ray.studies.sweeping.store import DONE, Row

_DRIVERS = ("privacy.target_epsilon", "privacy.noise_multiplier")
"""Settings that decide epsilon; the first of them that varies is what a line runs along."""

_MOST_LINES = 6


@dataclass(frozen=True)
class Curves:
    """The charts, and over what their lines are means.

    Attributes:
        figures: By domain, the pooled score first.
        over: Labels of the settings that a mean and its band span.
    """

    figures: Sequence[go.Figure] = ()
    over: Sequence[str] = ()


@dataclass(frozen=True)
class _Point:
    """What trials of one line and one setting of privacy came to; `epsilon` None: not private."""

    epsilon: float | None
    scores: Sequence[float]

    @property
    def mean(self) -> float:
        return sum(self.scores) / len(self.scores)

    @property
    def spread(self) -> str:
        if len(self.scores) == 1:
            return "one trial"
        low, high = percent(min(self.scores)), percent(max(self.scores))
        return f"{low} to {high}, {len(self.scores)} trials"


def privacy_utility(sweep: Sweep, rows: Sequence[Row]) -> Curves:
    """Return accuracy against epsilon by domain; no charts where epsilon was not varied.

    Only trials that ran to their end count. A line is drawn for each value of the other listed
    settings, as long as no more than six come together; what is left lies within the bands.
    """
    ended = [row for row in rows if row.status == DONE and row.accuracy is not None]
    settings = varying(sweep, ended)
    driver = next((s for name in _DRIVERS for s in settings if s.name == name), None)
    if driver is None or len({row.epsilon for row in ended if row.epsilon}) < 2:
        return Curves()
    split = _split([s for s in settings if s.listed and s not in (driver, _seed(settings))])
    lines: dict[str, list[Row]] = {}
    for row in sorted(ended, key=lambda row: [setting.place(row) for setting in split]):
        lines.setdefault(_name(split, row), []).append(row)
    names = [OVERALL, *dict.fromkeys(name for row in ended for name in row.domains or {})]
    drawn = {name: {line: _points(own, driver, name) for line, own in lines.items()}
             for name in names}  # fmt: skip
    rest = [s.label for s in settings if s not in (driver, *split)]
    return Curves(_figures(drawn, connected=driver.listed), rest)


def _seed(settings: Sequence[Setting]) -> Setting | None:
    return next((setting for setting in settings if setting.name == SEED), None)


def _split(settings: Sequence[Setting]) -> list[Setting]:
    """Return the settings that get lines of their own, the paradigm before all others."""
    chosen, lines = [], 1
    for setting in sorted(settings, key=lambda setting: setting.name != "paradigm"):
        if lines * len(setting.values) <= _MOST_LINES:
            chosen.append(setting)
            lines *= len(setting.values)
    return chosen


def _name(split: Sequence[Setting], row: Row) -> str:
    parts = [
        told(row.values[s.name])
        if s.name == "paradigm"
        else f"{text(s.label)} {told(row.values[s.name])}"
        for s in split
    ]
    return ", ".join(parts) or "all trials"


def _score(row: Row, domain: str) -> float | None:
    return row.accuracy if domain == OVERALL else (row.domains or {}).get(domain)


def _points(rows: Sequence[Row], driver: Setting, domain: str) -> list[_Point]:
    """Return a line's points by rising epsilon; those that are not private come last."""
    groups: dict[int, list[Row]] = {}
    for row in rows:
        if _score(row, domain) is not None:
            groups.setdefault(driver.place(row) if row.epsilon else -1, []).append(row)
    points = []
    for own in groups.values():
        spent = [row.epsilon for row in own if row.epsilon]
        scores = [score for row in own if (score := _score(row, domain)) is not None]
        points.append(_Point(sum(spent) / len(spent) if spent else None, scores))
    return sorted(points, key=lambda point: point.epsilon or float("inf"))


def _figures(
    drawn: Mapping[str, Mapping[str, Sequence[_Point]]], *, connected: bool
) -> list[go.Figure]:
    """Draw a chart a domain, all with the same axes and the same marks."""
    everything = [p for lines in drawn.values() for points in lines.values() for p in points]
    scores = [score for point in everything for score in point.scores]
    pad = 0.06 * (max(scores) - min(scores)) or 0.05
    spent = [point.epsilon for point in everything if point.epsilon]
    charts = []
    for domain, lines in drawn.items():
        figure = go.Figure()
        alone = len(lines) == 1
        for name, mark in (
            {next(iter(lines)): Mark(BLUE, "circle")} if alone else marks(lines)
        ).items():
            _add_line(figure, name, mark, lines[name], (min(spent), max(spent)), connected)
        figure.update_xaxes(title_text="epsilon", **log_ticks(spent, tick_epsilon))
        edges = [min(scores) - pad, max(scores) + pad]
        figure.update_yaxes(title_text="accuracy", tickformat=".0%", range=edges)
        figure.update_layout(
            **layout(f"Accuracy, {text(domain)}", 280 + 22 * len(lines), showlegend=not alone)
        )
        charts.append(figure)
    return charts


def _add_line(
    figure: go.Figure,
    name: str,
    mark: Mark,
    points: Sequence[_Point],
    span: tuple[float, float],
    connected: bool,
) -> None:
    private = [point for point in points if point.epsilon is not None]
    x = [point.epsilon for point in private]
    if connected and len(private) > 1 and any(len(point.scores) > 1 for point in private):
        low, high = ([pick(p.scores) for p in private] for pick in (min, max))
        figure.add_trace(band(x, low, high, mark.color, name))
    if private:
        figure.add_scatter(
            x=x,
            y=[point.mean for point in private],
            name=name,
            legendgroup=name,
            mode="lines+markers" if connected else "markers",
            line={"color": mark.color, "width": 2.5},
            marker={"symbol": mark.symbol, "size": 8, "color": mark.color},
            customdata=[point.spread for point in private],
            hovertemplate=hover(f"{name}, epsilon %{{x:.3g}}", "mean %{y:.1%}, %{customdata}"),
        )
    for point in points[len(private) :]:
        figure.add_scatter(
            x=list(span),
            y=[point.mean] * 2,
            name=f"{name} ({NOT_PRIVATE})",
            mode="lines",
            line={"color": mark.color, "width": 2, "dash": "dash"},
            hovertemplate=hover(f"{name}, {NOT_PRIVATE}", f"mean %{{y:.1%}}, {point.spread}"),
        )
