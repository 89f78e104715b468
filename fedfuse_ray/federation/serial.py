"""The executor that stays in this process: for debugging, tests, tiny runs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from fedfuse_ray.blocks import Blocks
from fedfuse_ray.data.dataset import Dataset
from fedfuse_ray.federation import checkpoint as checkpoints
from fedfuse_ray.federation.checkpoint import Checkpoint
from fedfuse_ray.federation.executor import RoundOutcome
from fedfuse_ray.federation.institution import Institution, NetCache, pin_threads
from fedfuse_ray.federation.metrics import Scores, View
from fedfuse_ray.federation.plan import Plan
from fedfuse_ray.federation.records import Alone, TrainRecord, with_uplink
from fedfuse_ray.federation.secure_round import STEPS, Answer
from fedfuse_ray.federation.server import Server
from fedfuse_ray.models.initial import initial_blocks


class SerialExecutor:
    """All participants one after the other in this process: for debugging, tests, tiny runs."""

    kind = "serial"

    def __init__(self) -> None:
        self._states: dict[str, Blocks] = {}

    def start(self, plan: Plan, dataset: Path) -> None:
        """Create the participants."""
        pin_threads()
        self._plan = plan
        nets = NetCache(plan)
        data = Dataset(dataset)
        self._participants = [Institution(plan, p, data, nets) for p in plan.participants]

    def load(self, path: Path | None) -> None:
        """Set server and institutions to a checkpoint, or to the seeded initial weights."""
        checkpoint = (
            checkpoints.read(path) if path else Checkpoint(0, initial_blocks(self._plan.spec))
        )
        self._server = Server(self._plan, checkpoint)
        self._states = dict(checkpoint.institutions)

    def train(self, round: int) -> RoundOutcome:
        """Run one round."""
        if self._plan.privacy is not None and self._plan.privacy.distributed:
            return self._train_securely(round)
        began = time.perf_counter()
        broadcast = self._server.broadcast()
        trained = [
            i.train(round, broadcast, self._states.get(i.participant.name, {}))
            for i in self._participants
        ]
        self._states |= {t.record.institution: t.state for t in trained if t.state}
        collected = time.perf_counter()
        aggregation = self._server.aggregate(round, [t.payload for t in trained])
        return RoundOutcome(
            records=tuple(t.record for t in trained),
            dropouts=(),
            aggregation=aggregation,
            train_seconds=collected - began,
            aggregate_seconds=time.perf_counter() - collected,
        )

    def _train_securely(self, round: int) -> RoundOutcome:
        began = time.perf_counter()
        broadcast = self._server.broadcast()
        answer: Answer = b""
        records: list[TrainRecord] = []
        messages: list[tuple[str, bytes | memoryview]] = []
        for step in STEPS:
            replies = [i.secure_step(step, round, answer, broadcast) for i in self._participants]
            names = [i.participant.name for i in self._participants]
            messages = [(n, r.message) for n, r in zip(names, replies, strict=True)]
            records += [r.record for r in replies if r.record is not None]
            if step != STEPS[-1]:
                answer = self._server.secure_step(step, round, messages)
        revealed = self._server.reveal(round, messages)
        collected = time.perf_counter()
        aggregation = self._server.aggregate_revealed(round, revealed)
        return RoundOutcome(
            records=with_uplink(records, revealed.uplink_bytes),
            dropouts=revealed.dropouts,
            aggregation=aggregation,
            train_seconds=collected - began,
            aggregate_seconds=time.perf_counter() - collected,
        )

    def evaluate(self, round: int, views: dict[str, tuple[View, ...]]) -> list[Scores]:
        """Score the global model."""
        weights = self._server.released()
        return [i.evaluate(weights, views[i.participant.domain]) for i in self._participants]

    def save(self, folder: Path) -> None:
        """Write a checkpoint."""
        checkpoints.save(folder, self._server.checkpoint(self._states))

    def sha256(self) -> str:
        """Return the digest of the global weights."""
        return self._server.sha256()

    def train_alone(
        self, names: Sequence[str], views: dict[str, tuple[View, ...]]
    ) -> Iterator[Alone]:
        """Train the named participants one after the other."""
        for i in self._participants:
            if i.participant.name in names:
                yield i.train_alone(views[i.participant.domain])

    def block_sizes(self) -> dict[str, int]:
        """Return the number of parameters of each block."""
        return {name: vector.size for name, vector in self._server.weights.items()}

    def close(self) -> None:
        """Drop the participants and their data."""
        self._participants = []
