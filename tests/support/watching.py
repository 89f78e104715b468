"""What tests of the network watch in a run: its tables, its weights, what institutions keep."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from fedfuse_ray.blocks import Blocks
from fedfuse_ray.federation.messages.updates import Kept
from fedfuse_ray.federation.modes.outcome import EVERYONE, Attendance, RoundOutcome
from fedfuse_ray.federation.rounds.serial import SerialExecutor

NAMES = ("med-01", "med-02", "mat-01")
"""The institutions of the preset `tiny`."""

SLOW = "network.links={med-01: {up_mbps: 0.01, down_mbps: 10.0}}"
DEADLINE = "network.aggregation={kind: deadline, deadline_seconds: 2.0}"

NO_COLLUDERS = "privacy.secure_aggregation.colluding=0"
"""With a colluder, who might answer twice, the three institutions of `tiny` must all stay."""

SHAKY = """network.links={
    med-01: {up_mbps: 10.0, down_mbps: 10.0, jitter_ms: 700.0},
    mat-01: {up_mbps: 10.0, down_mbps: 10.0, latency_ms: 5.0},
}"""
SHORT = "network.aggregation={kind: deadline, deadline_seconds: 1.0}"

TWO_AWAY = """network.links={
    med-01: {up_mbps: 10.0, down_mbps: 10.0, offline: [[0.0, 3.0]]},
    med-02: {up_mbps: 10.0, down_mbps: 10.0, offline: [[0.0, 3.0]]},
}"""

ELUSIVE = """network.links={
    med-01: {up_mbps: 10.0, down_mbps: 10.0, availability: 0.5},
    med-02: {up_mbps: 10.0, down_mbps: 10.0, availability: 0.5},
}"""

BEHIND = """network.links={
    med-01: {up_mbps: 2.5, down_mbps: 50.0, latency_ms: 3.0},
    med-02: {up_mbps: 50.0, down_mbps: 50.0, latency_ms: 2.0},
}"""
BUFFERED = "network.aggregation={kind: buffered-async, buffer_size: 2, staleness_exponent: 0.5}"

SIMULATED = (
    "simulated_start",
    "simulated_seconds",
    "started",
    "download_seconds",
    "compute_seconds",
    "upload_seconds",
)
TABLES = ("rounds.parquet", "institutions.parquet")


def tables(folder: Path) -> list[list[dict[str, Any]]]:
    """Return the rows of the rounds and of the institutions."""
    return [pq.read_table(folder / name).to_pylist() for name in TABLES]


def rows_by_key(folder: Path) -> dict[tuple[int, str], dict[str, Any]]:
    """Return the institutions' rows by round and name."""
    return {(r["round"], r["institution"]): r for r in tables(folder)[1]}


def status_of(folder: Path) -> dict[tuple[int, str], str]:
    """Return what became of each institution in each round."""
    return {key: row["status"] for key, row in rows_by_key(folder).items()}


def seconds_of(row: dict[str, Any]) -> float:
    """Return an institution's simulated seconds, from the broadcast to its update's arrival."""
    return float(row["download_seconds"] + row["compute_seconds"] + row["upload_seconds"])


def simulated_of(folder: Path) -> list[dict[str, Any]]:
    """Return what both tables tell of the virtual clock."""
    return [
        {name: row[name] for name in SIMULATED if name in row}
        for rows in tables(folder)
        for row in rows
    ]


def vectors_of(kept: Kept) -> Blocks:
    """Return all that an institution keeps, by kind and name."""
    controls = {f"controls/{name}": vector for name, vector in kept.controls.items()}
    return controls | {f"memory/{name}": vector for name, vector in kept.memory.items()}


class Watched(SerialExecutor):
    """Notes the weights before and after every round, and what institutions kept by then."""

    def __init__(self) -> None:
        super().__init__()
        self.models: list[Blocks] = []
        self.states: list[dict[str, Blocks]] = []

    def load(self, path: Path | None, journal: Path | None = None) -> None:
        """Set the state, and note it."""
        super().load(path, journal)
        self._note()

    def train(self, round: int, attendance: Attendance = EVERYONE, epoch: int = 0) -> RoundOutcome:
        """Run one round, and note what it left behind."""
        outcome = super().train(round, attendance, epoch)
        self._note()
        return outcome

    def steps(self) -> Iterator[Blocks]:
        """Yield each round's change of the weights."""
        for before, after in zip(self.models, self.models[1:], strict=False):
            yield {name: after[name] - before[name] for name in after}

    def _note(self) -> None:
        self.models.append(dict(self.weights))
        self.states.append({who: vectors_of(kept) for who, kept in self.kept.items()})
