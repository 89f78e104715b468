"""Curves of variants that are steps of one kind, as a study of skew has them."""

from __future__ import annotations

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from fedfuse_ray.report.schema import OVERALL
from fedfuse_ray.report.theme import category_axis, hover, marks, text
from fedfuse_ray.report.theme import layout as common
from fedfuse_ray.studies.related.results import Related, Row
from fedfuse_ray.studies.related.tables import layout


def curves(row: Row, found: Related) -> go.Figure | None:
    """Accuracy step by step for each kind, beside the system itself; None without steps."""
    placed = layout(row)
    if placed is None or not placed.numeric:
        return None
    titles = tuple(map(text, placed.levels))
    figure = make_subplots(rows=1, cols=len(titles), subplot_titles=titles, shared_yaxes=True)
    base = row.measured
    for column, (kind, levels) in enumerate(placed.levels.items(), 1):
        steps = {level: row.variants[f"{kind}-{level}"] for level in levels}
        points = {"none": base, **steps} if base is not None else steps
        for name, mark in marks((OVERALL, *found.domains)).items():
            known = {x: m.accuracy[name] for x, m in points.items() if name in m.accuracy}
            figure.add_scatter(
                x=[text(level) for level in known],
                y=list(known.values()),
                name=text(name),
                legendgroup=name,
                showlegend=column == 1,
                mode="lines+markers",
                line={"color": mark.color, "width": 3.5 if name == OVERALL else 1.5},
                marker={"symbol": mark.symbol, "size": 8},
                hovertemplate=hover(f"{text(name)}, %{{x}}: %{{y:.1%}}"),
                row=1,
                col=column,
            )
    figure.update_xaxes(category_axis())
    figure.update_yaxes(tickformat=".0%")
    figure.update_yaxes(title_text="accuracy", col=1)
    more = {"legend": {"orientation": "h", "x": 0, "y": 1.15, "yanchor": "bottom"}}
    figure.update_layout(**(common(f"{text(row.system)}: accuracy by kind and level", 400) | more))
    return figure
