"""Paradigms side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from fedfuse_ray.report.schema import OVERALL, Summary
from fedfuse_ray.report.theme import category_axis, columns, empty, hover, layout, marks, text
from fedfuse_ray.report.units import percent


def domains_of(comparison: Mapping[str, Summary]) -> list[str]:
    """Return every domain that a paradigm was scored on, in order of appearance."""
    return list(dict.fromkeys(name for s in comparison.values() for name in s.domains))


def accuracy_by_paradigm(comparison: Mapping[str, Summary]) -> go.Figure:
    """Grouped bars: for overall and each domain, a bar a paradigm."""
    title = "Accuracy by paradigm"
    if not comparison:
        return empty(title, "No paradigm was run.")
    names = [OVERALL, *domains_of(comparison)]
    figure = go.Figure()
    for paradigm, mark in marks(comparison).items():
        values = [comparison[paradigm].accuracy.get(name) for name in names]
        figure.add_bar(
            y=[text(name) for name in names],
            x=values,
            name=text(paradigm),
            orientation="h",
            marker_color=mark.color,
            text=[percent(value) for value in values],
            textposition="outside",
            cliponaxis=False,
            constraintext="none",
            hovertemplate=hover(f"{text(paradigm)}, %{{y}}: %{{x:.2%}}"),
        )
    ticks = [0, 0.25, 0.5, 0.75, 1]
    figure.update_xaxes(title_text="accuracy", tickformat=".0%", range=[0, 1.12], tickvals=ticks)
    figure.update_yaxes(category_axis(autorange="reversed"))
    height = 100 + len(names) * (16 + 22 * len(comparison))
    figure.update_layout(**layout(title, height, bargap=0.16, bargroupgap=0.06))
    return figure


def convergence_by_paradigm(
    rounds: Mapping[str, Any], comparison: Mapping[str, Summary]
) -> go.Figure:
    """Overall accuracy by round, a line a paradigm; a paradigm without rounds is a level line.

    Args:
        rounds: Rounds tables by paradigm.
        comparison: All summaries; gives each paradigm its colour and its final score.
    """
    title = "Accuracy by round"
    curves = {name: columns(table, "round", "accuracy") for name, table in rounds.items()}
    last = max((max(curve["round"]) for curve in curves.values() if curve["round"]), default=None)
    if last is None:
        return empty(title, "No paradigm was evaluated round by round.")
    first = min(min(curve["round"]) for curve in curves.values() if curve["round"])
    figure = go.Figure()
    for paradigm, mark in marks(comparison).items():
        curve = curves.get(paradigm, {"round": [], "accuracy": []})
        level = not curve["round"]
        final = comparison[paradigm].accuracy[OVERALL]
        figure.add_scatter(
            x=[first, last] if level else curve["round"],
            y=[final, final] if level else curve["accuracy"],
            name=text(paradigm) + (" (final)" if level else ""),
            mode="lines" if level or len(curve["round"]) > 60 else "lines+markers",
            line={"color": mark.color, "width": 2.5, "dash": "dash" if level else "solid"},
            marker={"symbol": mark.symbol, "size": 7},
            hovertemplate="%{y:.1%}",
        )
    figure.update_xaxes(title_text="round")
    figure.update_yaxes(title_text="accuracy, overall", tickformat=".0%")
    figure.update_layout(**layout(title, 420, hovermode="x unified"))
    return figure
