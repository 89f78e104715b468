"""A sweep's page: all trials in a table, accuracy against what it costs, the price of choosing."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

import plotly.graph_objects as go

from fedfuse_ray.files import write_text
from fedfuse_ray.report.page import Card, Charts, cards, document, section, table
from fedfuse_ray.report.theme import BLUE, NEUTRAL, VERMILION, empty, layout, text
from fedfuse_ray.report.units import ABSENT, human_bytes, human_seconds, percent, plain
from fedfuse_ray.sweeping.config import Sweep
from fedfuse_ray.sweeping.store import DONE, Row
from fedfuse_ray.sweeping.summary import Selection, best, pareto


def write_sweep_report(
    folder: Path, sweep: Sweep, rows: Sequence[Row], selection: Selection
) -> Path:
    """Write a sweep's `report.html` and return its path."""
    path = folder / "report.html"
    write_text(path, sweep_page(sweep, rows, selection))
    return path


def sweep_page(sweep: Sweep, rows: Sequence[Row], selection: Selection) -> str:
    """Return the page, self-contained; each trial links to its own report."""
    charts = Charts()
    front = {row.trial for row in pareto(rows, sweep.objectives)}
    on_front = "Diamonds are on the Pareto front: no other trial is as good everywhere."
    against_epsilon = charts.add(scatter(rows, front, "epsilon"), on_front)
    against_bytes = charts.add(scatter(rows, front, "uplink_bytes"), on_front)
    chosen = (
        "The best of many scores is a little lucky: train it again with other seeds before "
        "relying on its number."
    )
    body = "".join(
        [
            _header(sweep, rows, selection),
            section(
                "privacy", "Accuracy and privacy", "Further left protects more.", against_epsilon
            ),
            section("bytes", "Accuracy and bytes", "Further left sends less.", against_bytes),
            section("selection", "What choosing costs", selection.text),
            section(
                "trials", "The trials", chosen, f'<div class="panel">{_table(rows, front)}</div>'
            ),
        ]
    )
    return document("Sweep", body, charts)


def scatter(rows: Sequence[Row], front: Collection[str], field: str) -> go.Figure:
    """Draw accuracy against `epsilon` or `uplink_bytes`; trials of the front stand out."""
    what = {"epsilon": "epsilon", "uplink_bytes": "bytes sent up"}[field]
    title = f"Accuracy against {what}"
    shown = [r for r in rows if r.accuracy is not None and getattr(r, field)]
    if not shown:
        return empty(title, f"No trial has both an accuracy and its {what}.")
    figure = go.Figure()
    for name, color, symbol, among in (
        ("other trials", BLUE, "circle", [r for r in shown if r.trial not in front]),
        ("Pareto front", VERMILION, "diamond", [r for r in shown if r.trial in front]),
    ):
        figure.add_scatter(
            x=[getattr(row, field) for row in among],
            y=[row.accuracy for row in among],
            name=name,
            mode="markers",
            marker={"size": 11, "color": color, "symbol": symbol, "line": {"color": NEUTRAL}},
            text=[text(f"{row.trial}: {point_text(row)}") for row in among],
            hovertemplate="%{text}<br>%{x:.4s}, %{y:.2%}<extra></extra>",
        )
    figure.update_xaxes(title_text=what, type="log")
    figure.update_yaxes(title_text="accuracy", tickformat=".0%")
    figure.update_layout(**layout(title, 380))
    return figure


def point_text(row: Row) -> str:
    """Return a trial's point as a line of text."""
    return ", ".join(f"{name} {plain(value)}" for name, value in row.values.items())


def _header(sweep: Sweep, rows: Sequence[Row], selection: Selection) -> str:
    chosen = best(rows, sweep.objectives)
    done = sum(row.status == DONE for row in rows)
    entries = [Card("Trials", f"{done} of {len(rows)}", f"search {sweep.search.kind}")]
    if chosen is not None:
        entries += [
            Card("Best accuracy", percent(chosen.accuracy), chosen.trial),
            Card("Its uplink", human_bytes(chosen.uplink_bytes), f"{chosen.rounds} rounds"),
        ]
        if chosen.epsilon is not None:
            entries.append(Card("Its own epsilon", f"{chosen.epsilon:.2f}", "as if run alone"))
    if selection.cost is not None:
        entries.append(
            Card("Epsilon after choosing", f"{selection.cost.charged:.2f}", "the best is released")
        )
    lead = ", ".join(sweep.space)
    return (
        f'<header><p class="kicker">fedfuse_ray sweep over {escape(Path(sweep.base).stem)}</p>'
        f'<h1>Sweep</h1><p class="lead">{escape(lead)}</p>{cards(entries)}</header>'
    )


def _table(rows: Sequence[Row], front: Collection[str]) -> str:
    settings = list(dict.fromkeys(name for row in rows for name in row.values))
    domains = list(dict.fromkeys(name for row in rows for name in row.domains or {}))
    head = (
        "trial",
        *settings,
        "status",
        "overall",
        *domains,
        "epsilon",
        "uplink",
        "rounds",
        "time",
    )
    body = [
        (
            _link(row),
            *(escape(plain(row.values.get(name))) for name in settings),
            escape(row.status),
            _score(row, front),
            *(percent((row.domains or {}).get(name)) for name in domains),
            ABSENT if row.epsilon is None else f"{row.epsilon:.2f}",
            human_bytes(row.uplink_bytes),
            str(row.rounds),
            human_seconds(row.seconds),
        )
        for row in rows
    ]
    return table(head, body)


def _score(row: Row, front: Collection[str]) -> str:
    best_of_column = " best" if row.trial in front else ""
    return f'<td class="number{best_of_column}">{percent(row.accuracy)}</td>'


def _link(row: Row) -> str:
    name = escape(row.trial)
    if row.status != DONE:
        return name
    return f'<a href="trials/{quote(row.trial)}/report.html">{name}</a>'
