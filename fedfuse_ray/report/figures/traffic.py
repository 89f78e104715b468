"""What was sent: bytes by round and by institution, and what a parameter cost by block."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import plotly.graph_objects as go

from fedfuse_ray.report.reading import parse
from fedfuse_ray.report.schema import Summary
from fedfuse_ray.report.theme import (
    BLUE,
    NEUTRAL,
    NO_ROUNDS,
    ORANGE,
    SKY,
    columns,
    empty,
    hatch,
    hover,
    layout,
    line_mode,
    marks,
    name_axis,
    text,
    two_rows,
)
from fedfuse_ray.report.units import byte_unit, human_bytes

NOTHING_SENT = "Nothing was sent in this run."
_MOST_BARS = 40
_SAME = 1e-9  # bits that differ by less are the same


@dataclass(frozen=True)
class _Sent:
    """One series of bytes by round, and its line."""

    name: str
    values: list[float]
    color: str
    dash: str | None
    width: float


def bytes_per_round(rounds: Any, institutions: Any, summary: Summary) -> go.Figure:
    """Bytes sent in each round, and cumulated, beside what another codec's would be in fp32.

    Args:
        rounds: The rounds table.
        institutions: The institutions table, for the encoded updates alone.
        summary: For the fp32 reference and the codec's name.
    """
    title = "Bytes by round"
    if rounds.num_rows == 0:
        return empty(title, NO_ROUNDS)
    data = columns(rounds, "round", "uplink_bytes", "downlink_bytes")
    if not any(data["uplink_bytes"]) and not any(data["downlink_bytes"]):
        return empty(title, NOTHING_SENT)
    sent = summary.communication
    series = [
        _Sent(f"uplink ({text(sent.codec)})", data["uplink_bytes"], BLUE, None, 2.5),
        _Sent("downlink", data["downlink_bytes"], ORANGE, "dash", 2.5),
    ]
    payload = _payload(institutions, data["round"])
    if any(payload):
        series.append(_Sent("encoded updates alone", payload, SKY, "dot", 2.5))
    if sent.codec != "fp32":
        reference = [sent.fp32_uplink_bytes_per_round] * len(data["round"])
        # Drawn first and wide, so that a line on the same values stays visible.
        series.insert(0, _Sent("uplink as fp32", reference, NEUTRAL, "solid", 5))
    figure = two_rows(0.5)
    for row, summed in ((1, False), (2, True)):
        lines = [accumulate(entry.values) if summed else entry.values for entry in series]
        unit = _add_bytes(figure, row, data["round"], series, [list(line) for line in lines])
        label = f"cumulated, {unit}" if summed else f"{unit} a round"
        figure.update_yaxes(title_text=label, rangemode="tozero", row=row)
    figure.update_layout(**layout(title, 480, hovermode="x unified"))
    return figure


def _add_bytes(
    figure: go.Figure,
    row: int,
    rounds: list[int],
    series: list[_Sent],
    lines: list[list[float]],
) -> str:
    """Draw `lines`, in bytes, styled as `series`; return the unit that they share."""
    unit, size = byte_unit(max(map(max, lines)))
    for entry, line in zip(series, lines, strict=True):
        trace = go.Scatter(
            x=rounds,
            y=[value / size for value in line],
            customdata=[human_bytes(value) for value in line],
            name=entry.name,
            legendgroup=entry.name,
            showlegend=row == 1,
            mode=line_mode(len(line), entry.dash),
            line={"color": entry.color, "dash": entry.dash or "solid", "width": entry.width},
            hovertemplate="%{customdata}",
        )
        figure.add_trace(trace, row=row, col=1)
    return unit


def bytes_by_institution(institutions: Any) -> go.Figure:
    """What each institution sends in a mean round, its update apart from the protocol's messages.

    Args:
        institutions: The institutions table; of very many, those that send most are shown.
    """
    title = "Bytes a round by institution"
    keys = ["institution", "round"]
    data = columns(institutions, *keys, "uplink_bytes", "downlink_bytes", "payload_bytes")
    if not any(data["uplink_bytes"]) and not any(data["downlink_bytes"]):
        return empty(title, NOTHING_SENT)
    rounds = len(set(data["round"]))
    means: dict[str, Any] = {}
    values = zip(data["payload_bytes"], data["uplink_bytes"], data["downlink_bytes"], strict=True)
    for name, row in zip(data["institution"], values, strict=True):
        means[name] = means.get(name, 0.0) + np.array(row) / rounds
    if len(means) > _MOST_BARS:
        title += f": the {_MOST_BARS} of {len(means):,} that send most"
        means = dict(sorted(means.items(), key=lambda entry: -entry[1][1])[:_MOST_BARS])
    figure = go.Figure()
    _add_institutions(figure, means)
    figure.update_yaxes(name_axis([text(name) for name in means]))
    height = 120 + 24 * len(means)
    figure.update_layout(**layout(title, height, barmode="stack", bargap=0.3))
    figure.update_layout(legend_traceorder="normal")
    return figure


def bits_by_block(institutions: Any) -> go.Figure:
    """Bits that a parameter of each block costs on its way up, round by round.

    Args:
        institutions: The institutions table; a point is the mean over those that sent the block.

    Raises:
        InputError: A row's `compression` is not a JSON object.
    """
    title = "Bits a parameter by block"
    spent: dict[str, dict[int, list[float]]] = {}
    data = columns(institutions, "round", "compression")
    for number, told in zip(data["round"], data["compression"], strict=True):
        for block, bits in parse("institutions.parquet: compression", told or "{}").items():
            spent.setdefault(block, {}).setdefault(number, []).append(float(bits))
    if not spent:
        return empty(title, "The codec did not tell what a parameter costs.")
    if not any(_varies(by_round) for by_round in spent.values()):
        return empty(title, "Every round spent the same on a parameter.")
    figure = go.Figure()
    for block, mark in marks(sorted(spent)).items():
        points = {number: float(np.mean(bits)) for number, bits in sorted(spent[block].items())}
        figure.add_scatter(
            x=list(points),
            y=list(points.values()),
            name=text(block),
            mode=line_mode(len(points), None),
            line={"color": mark.color, "width": 2, "shape": "hv"},
            marker={"symbol": mark.symbol, "size": 6},
            hovertemplate="%{y:.3g} bits",
        )
    figure.update_xaxes(title_text="round")
    figure.update_yaxes(title_text="bits a parameter", rangemode="tozero")
    figure.update_layout(**layout(title, 420, hovermode="x unified", showlegend=True))
    return figure


def _varies(by_round: dict[int, list[float]]) -> bool:
    bits = [value for values in by_round.values() for value in values]
    return max(bits) - min(bits) > _SAME


def _payload(institutions: Any, rounds: list[int]) -> list[float]:
    """Return the bytes of the encoded updates by round; zeros where they were not measured."""
    data = columns(institutions, "round", "payload_bytes")
    total = dict.fromkeys(rounds, 0.0)
    for number, nbytes in zip(data["round"], data["payload_bytes"], strict=True):
        total[number] = total.get(number, 0.0) + nbytes
    return [total[number] for number in rounds]


def _add_institutions(figure: go.Figure, means: dict[str, Any]) -> None:
    """Draw institutions' mean bytes, given as arrays [update, uplink, downlink]."""
    update, uplink, downlink = np.array(list(means.values())).T
    unit, size = byte_unit(max(uplink.max(), downlink.max()))
    names = [text(name) for name in means]
    rest = np.maximum(uplink - update, 0.0)
    bars = [("uplink: encoded update", update, BLUE, ""), ("uplink: protocol", rest, ORANGE, "/")]
    if not update.any():
        bars = [("uplink", uplink, BLUE, "")]
    for label, nbytes, color, pattern in bars:
        figure.add_bar(
            y=names,
            x=nbytes / size,
            customdata=[human_bytes(value) for value in nbytes],
            name=label,
            orientation="h",
            marker={"color": color, "pattern": hatch(pattern)},
            hovertemplate=hover(f"%{{y}}, {label}: %{{customdata}}"),
        )
    figure.add_scatter(
        y=names,
        x=downlink / size,
        customdata=[human_bytes(value) for value in downlink],
        name="downlink",
        mode="markers",
        marker={"symbol": "diamond-open", "size": 9, "color": NEUTRAL, "line": {"width": 2}},
        hovertemplate=hover("%{y}, downlink: %{customdata}"),
    )
    figure.update_xaxes(title_text=f"{unit} a round", rangemode="tozero")
