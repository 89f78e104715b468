"""Executors run participants somewhere; the protocol that they share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fedfuse_ray.federation.messages.metrics import Scores, View
from fedfuse_ray.federation.messages.records import Alone, TrainRecord
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.rounds.timeline import EVERYONE, Attendance
from fedfuse_ray.federation.server.server import Aggregation


@dataclass(frozen=True)
class RoundOutcome:
    """What a round of training left behind.

    Attributes:
        records: One for each participant that trained, in participants' order.
        dropouts: Names of those whose update is not in the sum.
        aggregation: The server's account.
        train_seconds: Until the last update had arrived.
        aggregate_seconds: The server's step.
        simulated_start: Seconds on the virtual clock when the round began.
        simulated_seconds: How long it took there.
        fetched: Whom the broadcast has reached.
        unselected: Who could be reached, and was not chosen to train.
    """

    records: tuple[TrainRecord, ...]
    dropouts: tuple[str, ...]
    aggregation: Aggregation
    train_seconds: float
    aggregate_seconds: float
    simulated_start: float = 0.0
    simulated_seconds: float = 0.0
    fetched: tuple[str, ...] = ()
    unselected: tuple[str, ...] = ()


class Executor(Protocol):
    """Where participants and server live. Results don't depend on which one is used."""

    kind: str

    def start(self, plan: Plan, dataset: Path) -> None:
        """Bring participants up on the dataset in a folder."""
        ...

    def load(self, path: Path | None) -> None:
        """Set the server to a checkpoint, or to the seeded initial weights."""
        ...

    def noise_factor(self) -> float:
        """Return the factor on the next round's noise; 1 unless the schedule is adaptive."""
        ...

    def train(self, round: int, attendance: Attendance = EVERYONE) -> RoundOutcome:
        """Run one round: broadcast, local training, aggregation."""
        ...

    def evaluate(self, round: int, views: dict[str, tuple[View, ...]]) -> list[Scores]:
        """Score the global model, each domain's views, in participants' order."""
        ...

    def save(self, folder: Path) -> None:
        """Write a checkpoint."""
        ...

    def sha256(self) -> str:
        """Return the digest of the global weights."""
        ...

    def train_alone(
        self, names: Sequence[str], views: dict[str, tuple[View, ...]]
    ) -> Iterator[Alone]:
        """Train participants without a federation; yields each as it finishes."""
        ...

    def block_sizes(self) -> dict[str, int]:
        """Return the number of parameters of each block."""
        ...

    def close(self) -> None:
        """Let go of everything that `start` took."""
        ...
