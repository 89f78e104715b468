"""What happened round by round: scores, loss, seconds, privacy spent."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from fedfuse_ray.report import theme
from fedfuse_ray.report.rows import DOMAIN_PREFIX
from fedfuse_ray.report.schema import Summary


def convergence(rounds: Any, *, private: bool = False) -> go.Figure:
    """Accuracy, overall and by domain, above the training loss; alone where losses are private."""
    title = "Accuracy by round" if private else "Accuracy and loss by round"
    if rounds.num_rows == 0:
        return theme.empty(title, theme.NO_ROUNDS)
    if private:
        return _accuracy_alone(rounds, title)
    figure = theme.two_rows(0.64)
    if not _draw_accuracies(figure, rounds):
        _note(figure, "Not evaluated in this run", row=1)
    if not _line(
        figure, rounds, "loss", "training loss", theme.Mark(theme.VERMILION, "circle"), row=2
    ):
        _note(figure, "No loss recorded", row=2)
    figure.update_yaxes(title_text="accuracy", tickformat=".0%", row=1)
    figure.update_yaxes(title_text="loss", rangemode="tozero", row=2)
    figure.update_layout(**theme.layout(title, 520, hovermode="x unified"))
    return figure


def _accuracy_alone(rounds: Any, title: str) -> go.Figure:
    figure = make_subplots(rows=1, cols=1)
    _draw_accuracies(figure, rounds)
    if not figure.data:
        return theme.empty(title, "Scored once, at the end: each score costs privacy.")
    x, y = {"title_text": "round"}, {"title_text": "accuracy", "tickformat": ".0%"}
    return theme.dressed(figure, title, 400, x, y, hovermode="x unified")


def _draw_accuracies(figure: go.Figure, rounds: Any) -> bool:
    """Draw each domain's line, validation's and the pooled one; return whether that is there."""
    names = [name for name in rounds.column_names if name.startswith(DOMAIN_PREFIX)]
    domains = theme.marks(name.removeprefix(DOMAIN_PREFIX) for name in names)
    for domain, mark in domains.items():
        _line(figure, rounds, DOMAIN_PREFIX + domain, domain, mark)
    dotted = theme.Mark(theme.NEUTRAL, "circle-open")
    _line(figure, rounds, "validation_accuracy", "validation (own specimens)", dotted, dash="dot")
    return _line(figure, rounds, "accuracy", "overall", theme.Mark(theme.NEUTRAL, "star"), width=4)


def seconds_per_round(rounds: Any) -> go.Figure:
    """Where each round's wall-clock time went; the virtual clock below, where a link has one."""
    title = "Seconds by round"
    if rounds.num_rows == 0:
        return theme.empty(title, theme.NO_ROUNDS)
    names = ("train_seconds", "aggregate_seconds", "evaluate_seconds")
    data = theme.columns(rounds, "round", "seconds", *names)
    parts = list(zip(*(data[name] for name in names), strict=True))
    rest = [max(0.0, all_ - sum(part)) for all_, part in zip(data["seconds"], parts, strict=True)]
    simulated = theme.columns(rounds, "round", "simulated_seconds")
    clock = any(simulated["simulated_seconds"])
    figure = theme.two_rows(0.6) if clock else make_subplots(rows=1, cols=1)
    stack = (
        ("training", data["train_seconds"], theme.BLUE),
        ("aggregation", data["aggregate_seconds"], theme.ORANGE),
        ("evaluation", data["evaluate_seconds"], theme.GREEN),
        ("other", rest, theme.NEUTRAL),
    )
    hover = "%{y:.3g} s"
    for name, values, color in stack:
        bar = go.Bar(x=data["round"], y=values, name=name, marker_color=color, hovertemplate=hover)
        figure.add_trace(bar, row=1, col=1)
    figure.update_yaxes(title_text="wall-clock seconds", row=1)
    if clock:
        mark = theme.Mark(theme.PURPLE, "diamond")
        _line(figure, rounds, "simulated_seconds", "simulated network", mark, row=2, hover=hover)
        figure.update_yaxes(title_text="simulated seconds", rangemode="tozero", row=2)
    else:
        figure.update_xaxes(title_text="round")
    figure.update_layout(**theme.layout(title, 460 if clock else 340, hovermode="x unified"))
    figure.update_layout(barmode="stack", bargap=0.15, legend_traceorder="normal")
    return figure


def epsilon_by_round(rounds: Any, institutions: Any, summary: Summary) -> go.Figure:
    """Privacy loss spent so far: the largest over institutions, and the institutions' range."""
    title = "Privacy loss by round"
    spent = theme.columns(rounds, "round", "epsilon")
    if not spent["round"]:
        return theme.empty(title, "This run is not private: no epsilon was accounted.")
    figure = go.Figure()
    own = theme.columns(institutions, "round", "epsilon").values()
    least: dict[int, float] = {}
    for number, value in zip(*own, strict=True):
        least[number] = min(value, least.get(number, value))
    if least and any(least[n] < e for n, e in zip(*spent.values(), strict=True) if n in least):
        edge = {"color": theme.SKY, "dash": "dot", "width": 2}
        figure.add_scatter(
            x=list(least), y=list(least.values()), name="smallest of an institution", line=edge
        )
    figure.add_scatter(
        x=spent["round"],
        y=spent["epsilon"],
        name="largest of an institution",
        mode=theme.line_mode(len(spent["round"]), None),
        line={"color": theme.BLUE, "width": 3},
    )
    figure.update_traces(hovertemplate="%{y:.3f}")
    label = f"epsilon at delta = {summary.privacy.delta:g}"
    x, y = {"title_text": "round"}, {"title_text": label, "rangemode": "tozero"}
    return theme.dressed(figure, title, 340, x, y, hovermode="x unified", showlegend=True)


def _line(
    figure: go.Figure, rounds: Any, column: str, name: str, mark: theme.Mark, **style: Any
) -> bool:
    """Draw a column over the rounds that have it; return whether any has."""
    data = theme.columns(rounds, "round", column)
    dash = style.get("dash")
    if not data["round"]:
        return False
    trace = go.Scatter(
        x=data["round"],
        y=data[column],
        name=theme.text(name),
        mode=theme.line_mode(len(data["round"]), dash),
        line={"color": mark.color, "dash": dash or "solid", "width": style.get("width", 2)},
        marker={"symbol": mark.symbol, "size": 6},
        hovertemplate=style.get("hover", "%{y:.1%}" if "accuracy" in column else "%{y:.4g}"),
    )
    figure.add_trace(trace, row=style.get("row", 1), col=1)
    return True


def _note(figure: go.Figure, message: str, row: int) -> None:
    domain = "" if row == 1 else str(row)
    place = {"xref": f"x{domain} domain", "yref": f"y{domain} domain"}
    figure.add_annotation(text=message, **theme.IN_THE_MIDDLE, **place)
