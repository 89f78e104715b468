"""The charts' look: colour-blind-safe colours, one template for light and one for dark pages.

Colours: Okabe and Ito, "Color universal design", 2008. A second cue (marker, dash or label) always
stands beside the colour.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, YELLOW = "#E69F00", "#56B4E9", "#F0E442"
OKABE_ITO = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, YELLOW)
NEUTRAL = "#7A7F87"
"""Grey that reads on white and on near-black: pooled scores and reference lines."""

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "triangle-down")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
SEQUENTIAL = "Cividis"
"""Perceptually uniform, and alike for readers with and without colour blindness."""

NO_ROUNDS = "This paradigm has no communication rounds."
_MANY = 60  # beyond so many rounds, markers only hide the line

# Plotly reads a few tags in a chart's texts. They stand in a file of their own: no Python file
# holds HTML.
_MARKS: Mapping[str, str] = json.loads(
    (resources.files("fedfuse_ray.report") / "assets" / "marks.json").read_text("utf-8")
)


@dataclass(frozen=True)
class Mark:
    """A series' colour and its second cue."""

    color: str
    symbol: str


def marks(names: Iterable[str]) -> dict[str, Mark]:
    """Give each name its mark, by order; more than seven names share colours, not symbols."""
    count = len(OKABE_ITO)
    return {
        name: Mark(OKABE_ITO[i % count], SYMBOLS[(i + i // count) % len(SYMBOLS)])
        for i, name in enumerate(names)
    }


def text(name: str) -> str:
    """Return a user's name as text that plotly shows as it is."""
    return escape(name, quote=False)


def lines(texts: Iterable[str]) -> str:
    """Return texts that are marked up or escaped already as the lines of one."""
    return _MARKS["line_break"].join(texts)


def line_count(label: str) -> int:
    """Return how many lines a label from `lines` has."""
    return label.count(_MARKS["line_break"]) + 1


def bold(told: str) -> str:
    """Return a text in bold."""
    return _MARKS["bold"].format(told)


def small(told: str) -> str:
    """Return a text in small grey letters."""
    return _MARKS["small"].format(NEUTRAL, told)


def hover(*told: str) -> str:
    """Return the lines of a hover box, without the series' name that plotly would set beside it."""
    return _MARKS["hover"].format(lines(told))


def template(dark: bool = False) -> go.layout.Template:
    """Return the template for light or dark pages; the background is the page's."""
    ink, faint = ("#E6E8EB", "#3A3F46") if dark else ("#1D2733", "#E1E5EA")
    panel = "#22262C" if dark else "#FFFFFF"
    page = "#1D2126" if dark else "#FFFFFF"  # of a chart's own panel, in page.css
    axis = {
        "gridcolor": faint,
        "linecolor": NEUTRAL,
        "zeroline": False,
        "automargin": True,
        "title": {"standoff": 8, "font": {"size": 13}},
        "ticks": "outside",
        "tickcolor": faint,
    }
    return go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 13, "color": ink},
            "title": {"font": {"size": 17}, "x": 0, "xref": "container", "xanchor": "left"},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "annotationdefaults": {"bgcolor": page},  # readable where lines pass below
            "colorway": list(OKABE_ITO),
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": NEUTRAL, "activecolor": ink},
            "hoverlabel": {"bgcolor": panel, "font": {"family": FONT, "color": ink}},
            "xaxis": axis,
            "yaxis": axis,
        }
    )


def layout(title: str, height: int, **more: Any) -> dict[str, Any]:
    """Return the layout that every chart shares.

    Args:
        title: The chart's title.
        height: Pixels; the width follows the page.
        more: Further layout settings.
    """
    legend = {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
    margin = {"l": 8, "r": 16, "t": 48, "b": 8}
    base: dict[str, Any] = {"title": {"text": title}, "height": height, "template": template()}
    return {**base, "legend": legend, "margin": margin, **more}


def category_axis(**more: Any) -> dict[str, Any]:
    """Return an axis of names: a class called `1` or `2020-01-01` stays a name."""
    return {"type": "category", "showgrid": False, "ticks": "", "ticklabelstandoff": 4, **more}


def name_axis(names: Sequence[str]) -> dict[str, Any]:
    """Return an axis with a row for each name, from the top, and no room beyond them."""
    return category_axis(categoryarray=names, range=[len(names) - 0.4, -0.6])


def hatch(shape: str) -> dict[str, Any]:
    """Return a bar's hatching over its colour, a second cue; an empty `shape` leaves it plain."""
    return {"shape": shape, "fillmode": "overlay", "size": 6, "solidity": 0.2}


def empty(title: str, message: str) -> go.Figure:
    """Return a chart that says why there is nothing to show."""
    figure = go.Figure()
    hidden = {"visible": False}
    figure.update_layout(**layout(title, 140, xaxis=hidden, yaxis=hidden))
    figure.add_annotation(
        text=message,
        showarrow=False,
        xref="paper",
        yref="paper",
        x=0.5,
        y=0.5,
        font={"size": 14, "color": NEUTRAL},
    )
    return figure


def is_empty(figure: go.Figure) -> str | None:
    """Return the message of an empty chart, or None for one that shows data."""
    if figure.data:
        return None
    return str(figure.layout.annotations[0].text)


def columns(table: Any, *names: str) -> Mapping[str, list[Any]]:
    """Return the columns of an Arrow table as lists, without the rows where any is null."""
    kept = table.select(list(names)).drop_null().to_pydict()
    return {name: kept[name] for name in names}


def two_rows(upper: float) -> go.Figure:
    """Return two charts above each other over the same rounds; `upper` is the first's share."""
    heights = [upper, 1 - upper]
    figure = make_subplots(rows=2, cols=1, row_heights=heights, vertical_spacing=0.07)
    figure.update_xaxes(matches="x2", showticklabels=False, row=1)
    figure.update_xaxes(title_text="round", row=2)
    return figure


def line_mode(count: int, dash: str | None) -> str:
    """Return how a line of `count` points is drawn."""
    return (
        "lines+markers" if count <= _MANY and dash is None else "lines" if count > 1 else "markers"
    )


def band(
    x: Sequence[Any], low: Sequence[float], high: Sequence[float], color: str, group: str
) -> go.Scatter:
    """Return the area between two lines over the same places, behind the line of its group."""
    return go.Scatter(
        x=[*x, *reversed(x)],
        y=[*high, *reversed(low)],
        fill="toself",
        fillcolor=color,
        opacity=0.18,
        line={"width": 0},
        mode="lines",
        legendgroup=group,
        showlegend=False,
        hoverinfo="skip",
    )
