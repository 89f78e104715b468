"""Executors run participants somewhere; the protocol that they share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from fedfuse_ray.federation.messages.metrics import Scores, View
from fedfuse_ray.federation.messages.records import Alone
from fedfuse_ray.federation.modes.outcome import EVERYONE, Attendance, RoundOutcome
from fedfuse_ray.federation.plan.plan import Plan


class Executor(Protocol):
    """Where participants and server live. Results don't depend on which one is used."""

    kind: str

    def start(self, plan: Plan, dataset: Path) -> None:
        """Bring participants up on the dataset in a folder."""
        ...

    def load(self, path: Path | None, journal: Path | None = None) -> None:
        """Set the server to a checkpoint, or to the seeded initial weights.

        Args:
            path: The checkpoint.
            journal: The folder in which survivors are kept before their sums are unmasked.
        """
        ...

    def noise_factor(self) -> float:
        """Return the factor on the next round's noise; 1 unless the schedule is adaptive."""
        ...

    def train(self, round: int, attendance: Attendance = EVERYONE, epoch: int = 0) -> RoundOutcome:
        """Run one round: broadcast, local training, aggregation.

        Raises:
            SurvivorsChangedError: It was begun before with other survivors.
        """
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
