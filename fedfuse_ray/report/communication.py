"""The section of a run's page on what was sent, over which links, and who was waited for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedfuse_ray.report import figures
from fedfuse_ray.report.page import Charts, Group, Part, Section, Table, section, texts_of
from fedfuse_ray.report.rows import Status
from fedfuse_ray.report.store import RunResult
from fedfuse_ray.report.theme import is_empty
from fedfuse_ray.report.units import human_bytes, human_seconds
from fedfuse_ray.yaml12 import parse

_SECONDS = ("download_seconds", "compute_seconds", "upload_seconds")
_TEXTS = texts_of("fedfuse_ray.report")
_STATUSES: tuple[Status, ...] = ("sent", "late", "absent", "failed")
_UNSELECTED: Status = "not selected"


def communication(run: RunResult, charts: Charts) -> Section:
    """Return the section, its charts added to `charts`."""
    told = _TEXTS["communication"]
    sent = figures.bytes_per_round(run.rounds, run.institutions, run.summary)
    chosen = figures.bits_by_block(run.institutions)
    drawn = figures.timeline(run.rounds, run.institutions, _deadline(run.config))
    parts: list[Part] = [charts.add(sent, _sent(run))]
    if is_empty(sent) is None:  # else nothing is left to tell
        measured = run.summary.communication.payload_bytes_per_round
        caption = told["by_institution"] + (f" {told['protocol']}" if measured else "")
        parts.append(charts.add(figures.bytes_by_institution(run.institutions), caption))
        parts += [charts.add(chosen, told["bits"])] if is_empty(chosen) is None else []
        caption = told["timeline"] + (f" {told['slider']}" if drawn.layout.sliders else "")
        parts.append(charts.add(drawn, caption, wide=True))
    if is_empty(drawn) is None:
        parts.append(Group([_institutions(run)], "Institutions on the network", "details"))
    return section(_TEXTS, "communication", parts)


def _sent(run: RunResult) -> str:
    sent = run.summary.communication
    caption = (
        "Measured on the encoded payloads, summed over institutions. In all, "
        f"{human_bytes(sent.uplink_bytes_total)} went up, encoded as {sent.codec}."
    )
    if sent.payload_bytes_per_round:
        share = sent.payload_bytes_per_round / max(sent.uplink_bytes_per_round, 1.0)
        caption += (
            f" The encoded updates alone are {human_bytes(sent.payload_bytes_per_round)} a round, "
            f"{min(share, 1.0):.0%} of the uplink."
        )
    return caption


def _deadline(config: str) -> float | None:
    """Return the deadline that a run was configured with, in simulated seconds."""
    node: Any = parse(config)
    for key in ("network", "aggregation", "deadline_seconds"):
        node = node.get(key) if isinstance(node, Mapping) else None
    return None if node is None else float(node)


def _institutions(run: RunResult) -> Table:
    """Return the timeline as numbers: what became of each institution, and its mean seconds."""
    count: dict[str, dict[str, int]] = {}
    total: dict[str, dict[str, float]] = {}
    for row in run.institutions.select(["institution", "status", *_SECONDS]).to_pylist():
        name = row["institution"]
        by_status = count.setdefault(name, dict.fromkeys((*_STATUSES, _UNSELECTED), 0))
        by_status[row["status"]] += 1
        seconds = total.setdefault(name, dict.fromkeys(_SECONDS, 0.0))
        for column in _SECONDS:
            seconds[column] += row[column]
    selects = any(by_status[_UNSELECTED] for by_status in count.values())
    shown = (*_STATUSES, _UNSELECTED) if selects else _STATUSES
    rows = []
    for name, by_status in count.items():
        took_part = sum(by_status[status] for status in ("sent", "late", "failed"))
        means = [total[name][column] / max(1, took_part) for column in _SECONDS]
        rows.append(
            (
                name,
                *(f"{by_status[status]:,}" for status in shown),
                *(human_seconds(mean) for mean in means),
            )
        )
    return Table(("institution", *shown, "download", "compute", "upload"), rows)
