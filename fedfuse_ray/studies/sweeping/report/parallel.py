"""Every trial as a line across its settings and what they came to."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from fedfuse_ray.report.theme import BLUE, NEUTRAL, VERMILION, bold, empty, hover, layout, text
from fedfuse_ray.report.units import plain
from fedfuse_ray.studies.sweeping.config import Sweep
from fedfuse_ray.studies.sweeping.report.settings import (
    NOT_PRIVATE,
    SEED,
    Setting,
    described,
    folded,
    log_ticks,
    tick_bytes,
    tick_epsilon,
    told,
    varying,
)
from fedfuse_ray.studies.sweeping.store import DONE, Row

_MOST_LINES = 200
_BAND = 0.05
"""Lines through one listed value spread over this much of the axis, by accuracy."""


@dataclass(frozen=True)
class _Axis:
    """One upright axis, from 0 to 1: where each trial crosses it, and its ticks."""

    label: str
    places: Sequence[float]
    ticks: Sequence[tuple[float, str]]


def parallel(sweep: Sweep, rows: Sequence[Row], front: Collection[str]) -> go.Figure:
    """Return an axis a setting, then epsilon, bytes and accuracy; a line a trial.

    Args:
        sweep: For the settings' order.
        rows: All trials; only those that ran to their end are drawn, of very many the most
            accurate.
        front: Names of the trials on the Pareto front.
    """
    title = "Settings and what they came to"
    ended = [row for row in rows if row.status == DONE and row.accuracy is not None]
    if len(ended) < 2:
        return empty(title, "Fewer than two trials ran to their end.")
    kept = sorted(ended, key=lambda row: row.accuracy or 0.0)[-_MOST_LINES:]
    if len(kept) < len(ended):
        title += f": the {len(kept)} most accurate of {len(ended):,} trials"
    settings = [s for s in varying(sweep, kept) if s.name != SEED]
    axes = [_listed(s, kept) if s.listed else _drawn(s, kept) for s in settings]
    axes += _objectives(kept)
    figure = go.Figure()
    for group, name, color, width in (
        (False, "other trials", BLUE, 1.2),
        (True, "Pareto front", VERMILION, 3.0),
    ):
        own = [i for i, row in enumerate(kept) if (row.trial in front) == group]
        _add_lines(figure, axes, kept, own, (name, color, width))
    _add_axes(figure, axes)
    figure.update_layout(**layout(title, 460, showlegend=True))
    figure.update_layout(legend={"y": 1.16}, margin={"t": 48, "b": 16})
    return figure


def _listed(setting: Setting, rows: Sequence[Row]) -> _Axis:
    steps = len(setting.values) - 1
    at = [setting.place(row) for row in rows]
    places = []
    for i, value in enumerate(at):
        # Rows rise in accuracy, so lines through one value leave it in that order.
        rank, among = at[:i].count(value), at.count(value)
        places.append(value / steps + _BAND * (rank / max(1, among - 1) - 0.5) * (among > 1))
    ticks = [(i / steps, told(value)) for i, value in enumerate(setting.values)]
    return _Axis(setting.label, places, ticks)


def _drawn(setting: Setting, rows: Sequence[Row]) -> _Axis:
    values = [float(row.values[setting.name]) for row in rows]
    return _scaled(setting.label, values, plain, log=setting.log)


def _scaled(
    label: str,
    values: Sequence[float],
    tell: Callable[[float], str],
    *,
    log: bool,
    top: float = 1.0,
) -> _Axis:
    """Return an axis of numbers from 0 to `top`."""
    low, high = min(values), max(values)
    if low == high:
        return _Axis(label, [0.5 * top] * len(values), [(0.5 * top, tell(low))])
    if log:
        ticks = log_ticks(values, tell)["tickvals"]
        span = math.log(high / low)
        return _Axis(
            label,
            [top * math.log(value / low) / span for value in values],
            [(top * math.log(tick / low) / span, tell(tick)) for tick in ticks],
        )
    span = high - low
    step = next(s for s in _steps(span) if span / s <= 6)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return _Axis(
        label,
        [top * (value - low) / span for value in values],
        [(top * (i * step - low) / span, tell(i * step)) for i in range(first, last + 1)],
    )


def _steps(span: float) -> list[float]:
    unit = 10.0 ** math.floor(math.log10(span) - 1)
    return [factor * unit for factor in (1, 2, 5, 10, 20, 50)]


def _objectives(rows: Sequence[Row]) -> list[_Axis]:
    """Return what differs of epsilon and bytes, then accuracy."""
    axes = []
    spent = [row.epsilon for row in rows if row.epsilon]
    if len({*map(plain, spent)}) > 1 or 0 < len(spent) < len(rows):
        open_end = len(spent) < len(rows)
        private = _scaled("epsilon", spent, tick_epsilon, log=True, top=0.85 if open_end else 1.0)
        places = iter(private.places)
        at = [next(places) if row.epsilon else 1.0 for row in rows]
        axes.append(
            _Axis("epsilon", at, [*private.ticks, *([(1.0, NOT_PRIVATE)] if open_end else [])])
        )
    sent = [row.uplink_bytes or 0.0 for row in rows]
    if min(sent) > 0.0 and max(sent) > 1.02 * min(sent):
        axes.append(_scaled("bytes sent up", sent, tick_bytes, log=True))
    scores = [row.accuracy or 0.0 for row in rows]
    return [*axes, _scaled("accuracy", scores, lambda value: f"{value:.0%}", log=False)]


def _add_lines(
    figure: go.Figure,
    axes: Sequence[_Axis],
    rows: Sequence[Row],
    own: Sequence[int],
    style: tuple[str, str, float],
) -> None:
    name, color, width = style
    for count, i in enumerate(own):
        figure.add_scatter(
            x=list(range(len(axes))),
            y=[axis.places[i] for axis in axes],
            name=name,
            legendgroup=name,
            showlegend=count == 0,
            mode="lines+markers",
            line={"color": color, "width": width},
            marker={"size": 5, "color": color},
            opacity=0.9 if width > 2 else 0.55,
            customdata=[described(rows[i])] * len(axes),
            hovertemplate=hover("%{customdata}"),
        )


def _add_axes(figure: go.Figure, axes: Sequence[_Axis]) -> None:
    for x, axis in enumerate(axes):
        figure.add_vline(x=x, line={"color": NEUTRAL, "width": 1.5}, layer="below")
        for place, label in axis.ticks:
            figure.add_annotation(
                x=x, y=place, text=folded(label), showarrow=False, xanchor="right", xshift=-7,
                align="right", font={"size": 12},
            )  # fmt: skip
    hidden = {"showgrid": False, "zeroline": False, "ticks": "", "fixedrange": True}
    figure.update_xaxes(
        tickvals=list(range(len(axes))),
        ticktext=[bold(folded(text(axis.label))) for axis in axes],
        side="top",
        range=[-0.08 * len(axes), len(axes) - 1 + 0.04 * len(axes)],
        **hidden,
    )
    figure.update_yaxes(showticklabels=False, range=[-0.06, 1.06], **hidden)
