"""The paper's figures, drawn from what was measured."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from fedfuse_ray.report.schema import OVERALL
from fedfuse_ray.report.theme import (
    NEUTRAL,
    Mark,
    band,
    category_axis,
    empty,
    hover,
    layout,
    marks,
    name_axis,
    text,
)
from fedfuse_ray.studies.reproducing import paper
from fedfuse_ray.studies.reproducing.cells import ENCODERS, FUSION, PARADIGMS, SCRATCH
from fedfuse_ray.studies.reproducing.results import Reproduction, Row, Spread, gains
from fedfuse_ray.studies.reproducing.tables import NAMES, SKEWS, level_text

_NOT_RUN = "This study was not run."


def paradigms(found: Reproduction) -> go.Figure:
    """Accuracy by paradigm and domain: bars are measured, diamonds are the paper's."""
    title = "Accuracy by paradigm"
    rows = {p: row for p in PARADIGMS if (row := found.row("table3", paradigm=p)) is not None}
    if not rows:
        return empty(title, _NOT_RUN)
    figure = go.Figure()
    for index, (domain, mark) in enumerate(marks(paper.DOMAINS).items()):
        if any(domain not in row.accuracy for row in rows.values()):
            continue
        spreads = [row.accuracy[domain] for row in rows.values()]
        names = [NAMES[name] for name in rows]
        figure.add_bar(
            x=names,
            y=[s.mean for s in spreads],
            error_y=_whiskers(spreads),
            name=text(domain),
            marker_color=mark.color,
            offsetgroup=domain,
            hovertemplate=hover(f"{text(domain)}, %{{x}}: %{{y:.1%}}"),
        )
        known = [n for n in rows if n in paper.TABLE_3]
        figure.add_scatter(
            x=[NAMES[name] for name in known],
            y=[paper.TABLE_3[name][index] for name in known],
            name="the paper",
            legendgroup="paper",
            showlegend=index == 0,
            mode="markers",
            offsetgroup=domain,
            marker={"symbol": "diamond-open", "size": 9, "color": NEUTRAL, "line": {"width": 2}},
            hovertemplate=hover(f"the paper, {text(domain)}, %{{x}}: %{{y:.1%}}"),
        )
    figure.update_xaxes(category_axis())
    figure.update_yaxes(title_text="accuracy", tickformat=".0%", range=[0, 1])
    figure.update_layout(**layout(title, 420, barmode="group", scattermode="group", bargap=0.25))
    return figure


def privacy(found: Reproduction) -> go.Figure:
    """Accuracy against epsilon by domain, with the spread over seeds."""
    title = "Accuracy against epsilon"
    rows = found.studies.get("privacy", ())
    if not rows:
        return empty(title, _NOT_RUN)
    figure = go.Figure()
    epsilons = [row.at["epsilon"] for row in rows]
    central = found.row("table3", paradigm="centralized")
    for domain, mark in marks(paper.DOMAINS).items():
        if any(domain not in row.accuracy for row in rows):
            continue
        _curve(figure, epsilons, [row.accuracy[domain] for row in rows], domain, mark)
        if central is not None:
            level = central.accuracy[domain].mean
            figure.add_scatter(
                x=[epsilons[0], epsilons[-1]],
                y=[level, level],
                mode="lines",
                line={"color": mark.color, "dash": "dot", "width": 1.5},
                name=f"{text(domain)}, centralized",
                legendgroup=domain,
                hovertemplate=hover(f"{text(domain)}, centralized: %{{y:.1%}}"),
            )
    figure.update_xaxes(
        title_text="epsilon (larger protects less)",
        type="log",
        tickvals=epsilons,
        ticktext=[f"{value:g}" for value in epsilons],
    )
    figure.update_yaxes(title_text="accuracy", tickformat=".0%")
    figure.update_layout(**layout(title, 440))
    return figure


def skew(found: Reproduction) -> go.Figure:
    """Accuracy by level of each skew, without and with fusion."""
    title = "Accuracy as institutions' data drift apart"
    rows = found.studies.get("skew", ())
    if not rows:
        return empty(title, _NOT_RUN)
    figure = make_subplots(
        rows=2, cols=2, subplot_titles=list(SKEWS.values()), shared_yaxes=True, vertical_spacing=0.2
    )
    for place, name in enumerate(SKEWS):
        for paradigm, mark in marks(("federated", "fedfuse")).items():
            own = [r for r in rows if r.at["skew"] == name and r.at["paradigm"] == paradigm]
            spreads = [row.accuracy[OVERALL] for row in own]
            figure.add_scatter(
                x=[text(level_text(row.at["level"])) for row in own],
                y=[s.mean for s in spreads],
                error_y=_whiskers(spreads),
                name=NAMES[paradigm],
                legendgroup=paradigm,
                showlegend=place == 0,
                mode="lines+markers",
                line={"color": mark.color, "width": 2.5},
                marker={"symbol": mark.symbol, "size": 9},
                hovertemplate=hover("%{x}: %{y:.1%}"),
                row=place // 2 + 1,
                col=place % 2 + 1,
            )
    figure.update_xaxes(category_axis())
    figure.update_yaxes(tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(title_text="accuracy, overall", col=1)
    more = {"legend": {"orientation": "h", "x": 0, "y": 1.1, "yanchor": "bottom"}}
    figure.update_layout(**(layout(title, 560) | more))
    return figure


def transfer(found: Reproduction) -> go.Figure:
    """Gain over training from scratch by target domain."""
    title = "Gain over training from scratch"
    figure = go.Figure()
    for start, mark in marks((FUSION, ENCODERS)).items():
        names, spreads = [], []
        for row in found.studies.get("transfer", ()):
            scratch = found.row("transfer", target=row.at["target"], start=SCRATCH)
            if row.at["start"] == start and scratch is not None:
                names.append(text(row.at["target"]))
                spreads.append(gains(row, scratch))
        if spreads:
            figure.add_bar(
                x=names,
                y=[100 * s.mean for s in spreads],
                error_y=_whiskers(spreads, 100.0),
                name=f"{start} taken over",
                marker_color=mark.color,
                hovertemplate=hover("%{x}: %{y:+.1f} points"),
            )
    if not figure.data:
        return empty(title, _NOT_RUN)
    figure.add_hline(y=0, line={"color": NEUTRAL, "width": 1})
    figure.update_xaxes(category_axis(title_text="target domain"))
    figure.update_yaxes(title_text="points of accuracy", zeroline=True)
    figure.update_layout(**layout(title, 380, barmode="group", bargap=0.3))
    return figure


def ablation(found: Reproduction) -> go.Figure:
    """Overall accuracy with one part changed at a time."""
    title = "One part changed"
    rows: Sequence[Row] = found.studies.get("ablation", ())
    if not rows:
        return empty(title, _NOT_RUN)
    names = [text(row.at["change"]) for row in rows]
    spreads = [row.accuracy[OVERALL] for row in rows]
    mark = marks(names)[names[0]]
    figure = go.Figure()
    figure.add_scatter(
        y=names,
        x=[s.mean for s in spreads],
        error_x=_whiskers(spreads),
        mode="markers",
        marker={"size": 11, "color": mark.color, "symbol": mark.symbol},
        hovertemplate=hover("%{y}: %{x:.1%}"),
    )
    figure.add_vline(x=spreads[0].mean, line={"color": NEUTRAL, "dash": "dot", "width": 1.5})
    figure.update_xaxes(title_text="accuracy, overall", tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(name_axis(names))
    figure.update_layout(**layout(title, 120 + 34 * len(names), showlegend=False))
    return figure


def _curve(
    figure: go.Figure, x: Sequence[float], spreads: Sequence[Spread], name: str, mark: Mark
) -> None:
    figure.add_trace(band(x, [s.low for s in spreads], [s.high for s in spreads], mark.color, name))
    figure.add_scatter(
        x=list(x),
        y=[s.mean for s in spreads],
        mode="lines+markers",
        line={"color": mark.color, "width": 2.5},
        marker={"symbol": mark.symbol, "size": 9},
        name=text(name),
        legendgroup=name,
        hovertemplate=hover(f"{text(name)}, epsilon %{{x:g}}: %{{y:.1%}}"),
    )


def _whiskers(spreads: Sequence[Spread], scale: float = 1.0) -> dict[str, object]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [scale * (s.high - s.mean) for s in spreads],
        "arrayminus": [scale * (s.mean - s.low) for s in spreads],
        "color": NEUTRAL,
    }
