"""Accuracy against what it costs: epsilon, bytes, and the front that nothing beats."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from fedfuse_ray.report.theme import BLUE, NEUTRAL, SEQUENTIAL, VERMILION, empty, hover, layout
from fedfuse_ray.studies.sweeping.report.settings import (
    NOT_PRIVATE,
    described,
    log_ticks,
    tick_bytes,
    tick_epsilon,
)
from fedfuse_ray.studies.sweeping.store import DONE, STOPPED, Row

_NO_SCORE = "No trial has an accuracy."
_Measure = Callable[[Row], float | None]


@dataclass(frozen=True)
class _Cost:
    """A cost of a trial: how to read it off a row, its name, and a tick's text."""

    of: _Measure
    name: str
    tell: Callable[[float], str]


_EPSILON = _Cost(lambda row: row.epsilon or None, "epsilon", tick_epsilon)
_BYTES = _Cost(lambda row: row.uplink_bytes or None, "bytes sent up", tick_bytes)


def against_epsilon(rows: Sequence[Row], front: Collection[str]) -> go.Figure:
    """Accuracy against epsilon, coloured by bytes; trials without privacy stand to the right.

    Args:
        rows: All trials; those without an accuracy are left out.
        front: Names of the trials on the Pareto front.
    """
    title = "Accuracy against epsilon"
    shown = _scored(rows)
    spent = [row.epsilon for row in shown if row.epsilon]
    if not shown:
        return empty(title, _NO_SCORE)
    if not spent:
        return empty(title, "No trial is private: none has an epsilon.")
    open_end = 2.0 * max(spent) * (max(spent) / min(spent)) ** 0.1
    figure = go.Figure()
    _add_trials(figure, shown, front, lambda row: row.epsilon or open_end, _BYTES)
    axis = log_ticks(spent, _EPSILON.tell)
    if any(not row.epsilon for row in shown):
        axis["tickvals"] = [*axis["tickvals"], open_end]
        axis["ticktext"] = [*axis["ticktext"], NOT_PRIVATE]
    figure.update_xaxes(title_text="epsilon, smaller protects more", **axis)
    return _dressed(figure, title)


def against_bytes(rows: Sequence[Row], front: Collection[str]) -> go.Figure:
    """Accuracy against the bytes that all institutions sent up, coloured by epsilon."""
    title = "Accuracy against bytes"
    scored = _scored(rows)
    shown = [row for row in scored if row.uplink_bytes]
    if not scored:
        return empty(title, _NO_SCORE)
    if not shown:
        return empty(title, "No trial sent anything.")
    figure = go.Figure()
    _add_trials(figure, shown, front, _BYTES.of, _EPSILON)
    axis = log_ticks([row.uplink_bytes or 1.0 for row in shown], tick_bytes)
    figure.update_xaxes(title_text="bytes sent up over all rounds", **axis)
    return _dressed(figure, title)


def _scored(rows: Sequence[Row]) -> list[Row]:
    return [r for r in rows if r.status in (DONE, STOPPED) and r.accuracy is not None]


def _dressed(figure: go.Figure, title: str) -> go.Figure:
    figure.update_yaxes(title_text="accuracy, overall", tickformat=".0%")
    figure.update_layout(**layout(title, 420, showlegend=True))
    return figure


def _add_trials(
    figure: go.Figure, rows: Sequence[Row], front: Collection[str], x: _Measure, color: _Cost
) -> None:
    """Draw the stair of the best so far, then trials by kind, the front on top."""
    done = sorted((row for row in rows if row.status == DONE), key=lambda row: x(row) or 0.0)
    stair = [max(row.accuracy or 0.0 for row in done[: i + 1]) for i in range(len(done))]
    if len(done) > 1:
        figure.add_scatter(
            x=[x(row) for row in done],
            y=stair,
            name="best at this cost or less",
            mode="lines",
            line={"color": NEUTRAL, "width": 1.5, "dash": "dot", "shape": "hv"},
            hoverinfo="skip",
        )
    known = [value for row in done if (value := color.of(row)) is not None]
    scale = _scale(known, color)
    colored = [row for row in done if not scale or color.of(row) is not None]
    groups: list[tuple[str, list[Row], dict[str, Any], bool]] = [
        ("other trials", [r for r in colored if r.trial not in front], _dot("circle", 10), True),
        ("Pareto front", [r for r in colored if r.trial in front], _dot("diamond", 14), True),
        (f"{NOT_PRIVATE}", [r for r in done if r not in colored], _dot("square", 10), False),
        (
            "stopped early",
            [row for row in rows if row.status == STOPPED],
            {"symbol": "circle-open", "size": 8, "color": NEUTRAL},
            False,
        ),
    ]
    for name, among, marker, by_color in groups:
        if by_color and scale:
            marker |= {"color": [math.log10(color.of(row) or 1.0) for row in among], **scale}
        elif by_color:
            marker["color"] = VERMILION if name == "Pareto front" else BLUE
        if among:
            figure.add_scatter(
                x=[x(row) for row in among],
                y=[row.accuracy for row in among],
                name=name,
                mode="markers",
                marker=marker,
                customdata=[described(row) for row in among],
                hovertemplate=hover("%{customdata}"),
            )


def _dot(symbol: str, size: int) -> dict[str, Any]:
    edge = {"color": VERMILION if symbol == "diamond" else NEUTRAL, "width": 2}
    return {"symbol": symbol, "size": size, "color": NEUTRAL, "line": edge}


def _scale(values: Sequence[float], color: _Cost) -> dict[str, Any]:
    """Return a shared colour scale by logarithm; empty where all values are alike."""
    if not values or max(values) < 1.02 * min(values):
        return {}
    ticks = log_ticks(values, color.tell)
    return {
        "colorscale": SEQUENTIAL,
        "cmin": math.log10(min(values)),
        "cmax": math.log10(max(values)),
        "colorbar": {
            "title": {"text": color.name, "side": "right"},
            "tickvals": [math.log10(value) for value in ticks["tickvals"]],
            "ticktext": ticks["ticktext"],
            "thickness": 14,
            "outlinewidth": 0,
        },
    }
