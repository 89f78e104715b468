"""The virtual clock: who received, computed and sent when, and whom the server did not wait for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from fedfuse_ray.report.theme import (
    BLUE,
    NEUTRAL,
    NO_ROUNDS,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    columns,
    empty,
    hatch,
    hover,
    layout,
    name_axis,
    text,
)
from fedfuse_ray.report.units import human_seconds, second_unit

NO_CLOCK = "No simulated time was recorded: the network is ideal."
_WINDOW = 6  # rounds that are seen at once
_MOST_INSTITUTIONS = 40
_MOST_ROWS = 2000  # three bars each; more make the page slow

_PHASES = (
    ("download", "download_seconds", SKY, "/"),
    ("compute", "compute_seconds", BLUE, ""),
    ("upload", "upload_seconds", ORANGE, "\\"),
)
_DEADLINE = {"color": VERMILION, "width": 2, "dash": "dash"}
_MARKS = {
    "late": ("late, left out", "x", VERMILION),
    "absent": ("could not be reached", "circle-open", NEUTRAL),
    "failed": ("lost on the way", "triangle-up", PURPLE),
}


@dataclass(frozen=True)
class _Clock:
    """When rounds start and end, in simulated seconds, and the unit to show them in."""

    starts: Mapping[int, float]
    ends: Mapping[int, float]
    unit: str
    size: float

    @classmethod
    def of(cls, rounds: Any) -> _Clock:
        data = columns(rounds, "round", "simulated_start", "simulated_seconds")
        starts = dict(zip(data["round"], data["simulated_start"], strict=True))
        spans = zip(data["round"], data["simulated_seconds"], strict=True)
        ends = {number: starts[number] + seconds for number, seconds in spans}
        first = list(ends)[:_WINDOW]
        unit, size = second_unit(ends[first[-1]] - starts[first[0]])
        return cls(starts, ends, unit, size)


def timeline(rounds: Any, institutions: Any, deadline: float | None = None) -> go.Figure:
    """A row an institution: download, compute and upload of every round, on the virtual clock.

    A slider moves from one window of rounds to the next. A late institution's bars end with the
    round, since nobody waits for the rest.

    Args:
        rounds: The rounds table.
        institutions: The institutions table; of very many, the slowest are shown.
        deadline: Simulated seconds after a round's start when the server closes it, if it does.
    """
    title = "Rounds on the virtual clock"
    if rounds.num_rows == 0:
        return empty(title, NO_ROUNDS)
    rows = institutions.select(
        ["round", "institution", "status", "started", *(column for _, column, *_ in _PHASES)]
    ).to_pylist()
    if not any(_total(row) for row in rows):
        return empty(title, NO_CLOCK)
    clock = _Clock.of(rounds)
    names = _slowest(rows)
    everyone = len({row["institution"] for row in rows})
    if everyone > len(names):
        title += f": the {len(names)} slowest of {everyone:,}"
    shown = list(clock.starts)[: max(_WINDOW, _MOST_ROWS // len(names))]
    if len(shown) < len(clock.starts):
        title += f", rounds {shown[0]} to {shown[-1]} of {len(clock.starts)}"
    numbers, known = set(shown), set(names)
    kept = [row for row in rows if row["round"] in numbers and row["institution"] in known]
    figure = go.Figure()
    _add_bars(figure, kept, clock)
    _add_marks(figure, kept, clock)
    _add_rounds(figure, shown, clock, deadline)
    _add_windows(figure, shown, clock)
    _dress(figure, title, names)
    return figure


def _dress(figure: go.Figure, title: str, names: Sequence[str]) -> None:
    figure.update_yaxes(name_axis([text(name) for name in names]))
    plot = 24 * len(names)
    height = plot + (240 if figure.layout.sliders else 140)
    figure.update_layout(**layout(title, height, barmode="overlay", bargap=0.25))
    # The rounds' names stand between the plot and the legend.
    figure.update_layout(legend_y=1 + 24 / plot)


def _total(row: Mapping[str, Any]) -> float:
    return float(sum(row[column] for _, column, *_ in _PHASES))


def _slowest(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the institutions in their order, or of very many those that take longest."""
    totals: dict[str, float] = {}
    for row in rows:
        totals[row["institution"]] = totals.get(row["institution"], 0.0) + _total(row)
    kept = set(sorted(totals, key=lambda name: -totals[name])[:_MOST_INSTITUTIONS])
    return [name for name in totals if name in kept]


def _bars(row: Mapping[str, Any], clock: _Clock) -> Iterator[tuple[str, float, float]]:
    """Yield phase, start and length, in seconds, of what is drawn of a row."""
    cursor = row["started"]
    end = clock.ends[row["round"]] if row["status"] == "late" else float("inf")
    for phase, column, *_ in _PHASES:
        length = min(row[column], end - cursor)
        if length > 0.0:
            yield phase, cursor, length
        cursor += row[column]


def _told(row: Mapping[str, Any], column: str) -> str:
    return f"{human_seconds(row[column])}, round {row['round']}, {row['status']}"


def _short(value: float) -> float:
    # Thousands of bars with sixteen digits each would be most of the page's own weight.
    return float(f"{value:.7g}")


def _add_bars(figure: go.Figure, rows: Sequence[Mapping[str, Any]], clock: _Clock) -> None:
    drawn = [(row, *bar) for row in rows for bar in _bars(row, clock)]
    for phase, column, color, pattern in _PHASES:
        own = [(row, start, length) for row, name, start, length in drawn if name == phase]
        figure.add_bar(
            y=[text(row["institution"]) for row, _, _ in own],
            base=[_short(start / clock.size) for _, start, _ in own],
            x=[_short(length / clock.size) for _, _, length in own],
            customdata=[_told(row, column) for row, _, _ in own],
            name=phase,
            orientation="h",
            marker={"color": color, "pattern": hatch(pattern)},
            hovertemplate=hover(f"%{{y}}, {phase}: %{{customdata}}"),
        )


def _add_marks(figure: go.Figure, rows: Sequence[Mapping[str, Any]], clock: _Clock) -> None:
    """Mark the late where the round ends, the absent in its middle, the failed where they stop."""
    for status, (label, symbol, color) in _MARKS.items():
        own = [row for row in rows if row["status"] == status]
        if not own:
            continue
        places = []
        for row in own:
            start, end = clock.starts[row["round"]], clock.ends[row["round"]]
            stopped = row["started"] + _total(row)
            place = {"late": end, "absent": (start + end) / 2, "failed": max(stopped, start)}
            places.append(_short(place[status] / clock.size))
        # A mark may lie on a bar: a white edge keeps it apart from the bar's colour.
        edge = {"color": color if symbol.endswith("open") else "white", "width": 1.5}
        figure.add_scatter(
            x=places,
            y=[text(row["institution"]) for row in own],
            customdata=[row["round"] for row in own],
            name=label,
            mode="markers",
            marker={"symbol": symbol, "size": 11, "color": color, "line": edge},
            hovertemplate=hover(f"%{{y}}, round %{{customdata}}: {label}"),
        )


def _add_rounds(
    figure: go.Figure, shown: Sequence[int], clock: _Clock, deadline: float | None
) -> None:
    """Draw where rounds start, and where the deadline is."""
    shapes, names = [], []
    for number in shown:
        start = clock.starts[number] / clock.size
        shapes.append(_upright(start, color=NEUTRAL, width=1))
        names.append(
            {
                # In the middle, so that no name is cut off at a window's edge.
                "x": (start + clock.ends[number] / clock.size) / 2,
                "y": 1.0,
                "yref": "paper",
                "yanchor": "bottom",
                "showarrow": False,
                "text": f"round {number}",
                "font": {"size": 11, "color": NEUTRAL},
            }
        )
        if deadline is not None:
            shapes.append(_upright(start + deadline / clock.size, **_DEADLINE))
    # At once: each `add_vline` copies all lines before it, minutes for five hundred rounds.
    figure.update_layout(shapes=shapes, annotations=names)
    if deadline is not None:
        # Lines of the layout have no entry in the legend of their own.
        figure.add_scatter(x=[None], y=[None], name="deadline", mode="lines", line=_DEADLINE)


def _upright(x: float, **line: Any) -> dict[str, Any]:
    """Return a line through the whole height of the plot, behind the bars."""
    place = {"xref": "x", "x0": x, "x1": x, "yref": "y domain", "y0": 0, "y1": 1}
    return {"type": "line", "layer": "below", "line": line, **place}


def _add_windows(figure: go.Figure, shown: Sequence[int], clock: _Clock) -> None:
    """Show the first window of rounds, and a slider to the others."""
    windows = {}
    for index in range(0, len(shown), _WINDOW):
        window = shown[index : index + _WINDOW]
        start, end = clock.starts[window[0]] / clock.size, clock.ends[window[-1]] / clock.size
        label = f"{window[0]} to {window[-1]}" if len(window) > 1 else str(window[0])
        windows[label] = [start - 0.01 * (end - start), end + 0.01 * (end - start)]
    first = next(iter(windows.values()))
    figure.update_xaxes(title_text=f"simulated {clock.unit} since the run began", range=first)
    if len(windows) == 1:
        return
    slider = {
        "steps": [
            {"method": "relayout", "args": [{"xaxis.range": edges}], "label": label}
            for label, edges in windows.items()
        ],
        "currentvalue": {"prefix": "rounds ", "font": {"size": 13}},
        "pad": {"t": 52, "b": 4},
        "bgcolor": NEUTRAL,
        "activebgcolor": BLUE,
        "bordercolor": NEUTRAL,
        "tickcolor": NEUTRAL,
        "font": {"size": 11},
    }
    figure.update_layout(sliders=[slider])
