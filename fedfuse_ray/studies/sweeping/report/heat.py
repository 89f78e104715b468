"""Mean accuracy over each pair of settings whose values the sweep file lists."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from fedfuse_ray.report.theme import SEQUENTIAL, category_axis, hover, layout, text
from fedfuse_ray.report.units import percent
from fedfuse_ray.studies.sweeping.config import Sweep
from fedfuse_ray.studies.sweeping.report.settings import SEED, Setting, folded, told, varying
from fedfuse_ray.studies.sweeping.store import DONE, Row

_MOST_CELLS = 12  # across, beyond which cells have no room for a number

Scores = Mapping[tuple[int, int], Sequence[float]]


def heat_maps(sweep: Sweep, rows: Sequence[Row]) -> list[go.Figure]:
    """Return a map for each pair of listed settings that both vary, all on one colour scale.

    A cell is the mean over everything else, seeds among it. Only trials that ran to their end
    count: those that were stopped early have an accuracy of another round.
    """
    ended = [row for row in rows if row.status == DONE and row.accuracy is not None]
    settings = [s for s in varying(sweep, ended) if s.listed and s.name != SEED]
    pairs = itertools.combinations(settings, 2)
    maps = [(pair, cells) for pair in pairs if _crossed(cells := _scores(pair, ended))]
    means = [sum(cell) / len(cell) for _, cells in maps for cell in cells.values()]
    return [_map(*pair, cells, (min(means), max(means))) for pair, cells in maps]


def _scores(pair: tuple[Setting, Setting], rows: Sequence[Row]) -> Scores:
    cells: dict[tuple[int, int], list[float]] = {}
    for row in rows:
        cells.setdefault((pair[0].place(row), pair[1].place(row)), []).append(row.accuracy or 0.0)
    return cells


def _crossed(scores: Scores) -> bool:
    """Whether some value of one setting was tried with two of the other, both ways."""
    across = [first for first, _ in scores]
    down = [second for _, second in scores]
    return len(set(across)) < len(across) and len(set(down)) < len(down)


def _map(down: Setting, across: Setting, scores: Scores, edges: tuple[float, float]) -> go.Figure:
    if _width(down) < _width(across):  # long names have more room beside the rows
        down, across = across, down
        scores = {(second, first): cell for (first, second), cell in scores.items()}
    columns, lines = range(len(across.values)), range(len(down.values))
    cells = [[scores.get((line, column), ()) for column in columns] for line in lines]
    numbered = len(columns) <= _MOST_CELLS
    figure = go.Figure(
        go.Heatmap(
            x=[folded(told(value)) for value in across.values],
            y=[folded(told(value)) for value in down.values],
            z=[[sum(cell) / len(cell) if cell else None for cell in line] for line in cells],
            customdata=[[_spread(cell) for cell in line] for line in cells],
            zmin=edges[0],
            zmax=edges[1],
            colorscale=SEQUENTIAL,
            xgap=2,
            ygap=2,
            texttemplate="%{z:.0%}" if numbered else None,
            hoverongaps=False,
            hovertemplate=hover(
                f"{folded(text(across.label))} %{{x}}",
                f"{folded(text(down.label))} %{{y}}",
                "mean accuracy %{z:.1%}",
                "%{customdata}",
            ),
            showscale=not numbered,
            colorbar={"tickformat": ".0%", "thickness": 12, "outlinewidth": 0},
        )
    )
    figure.update_xaxes(category_axis(title_text=text(across.label)))
    figure.update_yaxes(category_axis(title_text=text(down.label), autorange="reversed"))
    title = text(f"{down.label} and {across.label}")
    figure.update_layout(**layout(title, 150 + 44 * max(2, len(down.values))))
    return figure


def _width(setting: Setting) -> tuple[int, int]:
    """Return how long a setting's longest value is, then how few values it has."""
    return max(len(told(value)) for value in setting.values), -len(setting.values)


def _spread(cell: Sequence[float]) -> str:
    if len(cell) < 2:
        return "one trial"
    return f"{len(cell)} trials, {percent(min(cell))} to {percent(max(cell))}"
