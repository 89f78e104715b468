"""The rows of a run's two tables, `rounds.parquet` and `institutions.parquet`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal, TypeAlias

import pyarrow as pa

DOMAIN_PREFIX = "accuracy/"
"""Prefix of the rounds table's columns of one domain's accuracy."""

Status = Literal["sent", "late", "absent", "failed", "not selected"]
"""What became of an institution in a round: its update was summed; it arrived after the deadline;
the institution could not be reached; it was lost on the way; the institution was not chosen to
train."""

AS_PLANNED: tuple[Status, ...] = ("sent", "not selected")
"""In which nothing went wrong."""


@dataclass(frozen=True)
class RoundRow:
    """One round of `rounds.parquet`.

    Attributes:
        epsilon: The largest over institutions so far; None when not private.
        accuracy: Pooled over all domains; None where the round was not evaluated.
        domain_accuracy: Each domain's, written as columns `accuracy/<domain>`.
        simulated_start: Simulated seconds since the run began, when the round started.
    """

    round: int
    loss: float | None
    seconds: float
    train_seconds: float
    aggregate_seconds: float
    evaluate_seconds: float
    simulated_seconds: float
    uplink_bytes: int
    downlink_bytes: int
    participants: int
    dropouts: int = 0
    epsilon: float | None = None
    accuracy: float | None = None
    domain_accuracy: Mapping[str, float | None] = field(default_factory=dict)
    macro_f1: float | None = None
    validation_accuracy: float | None = None
    simulated_start: float = 0.0


@dataclass(frozen=True)
class InstitutionRow:
    """One institution in one round, of `institutions.parquet`; modalities are comma-joined.

    Attributes:
        uplink_bytes: All that it sent.
        status: What became of it.
        started: Simulated seconds since the run began, when it started on the round.
        download_seconds: Simulated, as are `compute_seconds` and `upload_seconds`.
        payload_bytes: Its encoded update alone; 0 where it was not measured.
        staleness: Server steps between the model that it started from and its update's use.
        compression: Block name to bits a parameter, as a compact JSON object; empty where the
            codec does not tell.
        patients: Patients of its training specimens; 0 where nobody knows.
    """

    round: int
    institution: str
    domain: str
    modalities: tuple[str, ...]
    specimens: int
    steps: int
    loss: float | None
    train_seconds: float
    uplink_bytes: int
    downlink_bytes: int
    validation_accuracy: float | None = None
    epsilon: float | None = None
    status: Status = "sent"
    started: float = 0.0
    download_seconds: float = 0.0
    compute_seconds: float = 0.0
    upload_seconds: float = 0.0
    payload_bytes: int = 0
    staleness: int = 0
    compression: str = ""
    patients: int = 0


RoundRows: TypeAlias = tuple[RoundRow, Sequence[InstitutionRow]]
"""What the two tables say of one round."""

_WHOLE = (
    "round",
    "uplink_bytes",
    "downlink_bytes",
    "participants",
    "dropouts",
    "specimens",
    "steps",
    "payload_bytes",
    "staleness",
    "patients",
)
_TEXT = ("institution", "domain", "modalities", "status", "compression")
_LATER = (
    "simulated_start",
    "status",
    "started",
    "download_seconds",
    "compute_seconds",
    "upload_seconds",
    "payload_bytes",
    "staleness",
    "compression",
    "patients",
)


def _schema(row: type[RoundRow] | type[InstitutionRow], *, drop: str = "") -> pa.Schema:
    kinds = {**dict.fromkeys(_WHOLE, pa.int64()), **dict.fromkeys(_TEXT, pa.string())}
    names = [entry.name for entry in fields(row) if entry.name != drop]
    return pa.schema([(name, kinds.get(name, pa.float64())) for name in names])


ROUNDS: pa.Schema = _schema(RoundRow, drop="domain_accuracy")
INSTITUTIONS: pa.Schema = _schema(InstitutionRow)

LATER: Mapping[str, object] = {
    entry.name: entry.default
    for row in (RoundRow, InstitutionRow)
    for entry in fields(row)
    if entry.name in _LATER
}
"""Columns that older folders lack, and the value that their rows are read with."""


def rounds_table(row: RoundRow) -> pa.Table:
    """Return one round as a table of one row, the domains' columns last."""
    values = {name: [getattr(row, name)] for name in ROUNDS.names}
    fixed = pa.table(values, schema=ROUNDS)
    for domain, value in row.domain_accuracy.items():
        column = pa.array([value], pa.float64())
        fixed = fixed.append_column(DOMAIN_PREFIX + domain, column)
    return fixed


def institutions_table(rows: list[InstitutionRow]) -> pa.Table:
    """Return institutions' rows as a table."""
    values = {name: [getattr(row, name) for row in rows] for name in INSTITUTIONS.names}
    values["modalities"] = [",".join(row.modalities) for row in rows]
    return pa.table(values, schema=INSTITUTIONS)
