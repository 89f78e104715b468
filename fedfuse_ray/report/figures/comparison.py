"""Paradigms side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from fedfuse_ray.report import theme
from fedfuse_ray.report.schema import OVERALL, Summary


def domains_of(comparison: Mapping[str, Summary]) -> list[str]:
    """Return every domain that a paradigm was scored on, in order of appearance."""
    return list(dict.fromkeys(name for s in comparison.values() for name in s.domains))


def accuracy_by_paradigm(comparison: Mapping[str, Summary]) -> go.Figure:
    """Grouped bars: for overall and each domain, a bar a paradigm."""
    title = "Accuracy by paradigm"
    if not comparison:
        return theme.empty(title, "No paradigm was run.")
    names = [OVERALL, *domains_of(comparison)]
    figure = go.Figure()
    for paradigm, mark in theme.marks(comparison).items():
        values = [comparison[paradigm].accuracy.get(name) for name in names]
        theme.add_scores(
            figure,
            [theme.text(name) for name in names],
            values,
            name=theme.text(paradigm),
            marker_color=mark.color,
            hovertemplate=theme.hover(f"{theme.text(paradigm)}, %{{y}}: %{{x:.2%}}"),
        )
    x, y = {"title_text": "accuracy", **theme.SCORE_AXIS}, theme.category_axis(autorange="reversed")
    height = 100 + len(names) * (16 + 22 * len(comparison))
    return theme.dressed(figure, title, height, x, y, bargap=0.16, bargroupgap=0.06)


def convergence_by_paradigm(
    rounds: Mapping[str, Any], comparison: Mapping[str, Summary]
) -> go.Figure:
    """Overall accuracy by round, a line a paradigm; a paradigm without rounds is a level line."""
    title = "Accuracy by round"
    curves = {name: theme.columns(table, "round", "accuracy") for name, table in rounds.items()}
    last = max((max(curve["round"]) for curve in curves.values() if curve["round"]), default=None)
    if last is None:
        return theme.empty(title, "No paradigm was evaluated round by round.")
    first = min(min(curve["round"]) for curve in curves.values() if curve["round"])
    figure = go.Figure()
    for paradigm, mark in theme.marks(comparison).items():
        curve = curves.get(paradigm, {"round": [], "accuracy": []})
        level = not curve["round"]
        final = comparison[paradigm].accuracy[OVERALL]
        figure.add_scatter(
            x=[first, last] if level else curve["round"],
            y=[final, final] if level else curve["accuracy"],
            name=theme.text(paradigm) + (" (final)" if level else ""),
            mode="lines" if level or len(curve["round"]) > 60 else "lines+markers",
            line={"color": mark.color, "width": 2.5, "dash": "dash" if level else "solid"},
            marker={"symbol": mark.symbol, "size": 7},
            hovertemplate="%{y:.1%}",
        )
    x, y = {"title_text": "round"}, {"title_text": "accuracy, overall", "tickformat": ".0%"}
    return theme.dressed(figure, title, 420, x, y, hovermode="x unified")
