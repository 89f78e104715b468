"""The executor that stays in this process: for debugging, tests, tiny runs."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from fedfuse_ray.blocks import Blocks
from fedfuse_ray.data.dataset import Dataset
from fedfuse_ray.federation.checkpoints import checkpoint as checkpoints
from fedfuse_ray.federation.checkpoints.checkpoint import Checkpoint
from fedfuse_ray.federation.institution.institution import Institution, NetCache, pin_threads
from fedfuse_ray.federation.messages.metrics import Scores, View
from fedfuse_ray.federation.messages.records import Alone, Trained, TrainRecord
from fedfuse_ray.federation.modes.buffered import Buffered
from fedfuse_ray.federation.modes.masked import Answer
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.plan.transfer import first_weights
from fedfuse_ray.federation.rounds.executor import RoundOutcome
from fedfuse_ray.federation.rounds.outcomes import buffered_outcome, plain_outcome, secure_outcome
from fedfuse_ray.federation.rounds.timeline import EVERYONE, Attendance
from fedfuse_ray.federation.server.server import Server


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
            checkpoints.read(path) if path else Checkpoint(0, first_weights(self._plan.spec))
        )
        self._server = Server(self._plan, checkpoint)
        self._states = dict(checkpoint.institutions)
        self._buffered = Buffered(self._plan, dict(checkpoint.carried))

    def noise_factor(self) -> float:
        """Return the factor on the next round's noise."""
        return self._server.noise_factor

    def train(self, round: int, attendance: Attendance = EVERYONE) -> RoundOutcome:
        """Run one round."""
        if self._plan.steps:
            return self._train_securely(round, attendance)
        if self._plan.asynchronous:
            return self._train_buffered(round, attendance)
        began = time.perf_counter()
        trained = self._train(round, attendance, attendance.idle)
        collected = time.perf_counter()
        sent = [(t.record.institution, t.payload) for t in trained if t.payload]
        aggregation = self._server.aggregate(round, sent)
        return plain_outcome(
            self._plan,
            round,
            attendance,
            [t.record for t in trained],
            aggregation,
            (began, collected, time.perf_counter()),
        )

    def _train(self, round: int, attendance: Attendance, idle: Collection[str]) -> list[Trained]:
        """Train everybody but the named ones, and keep their states."""
        broadcast = self._server.broadcast()
        trained = []
        for institution in self._participants:
            name = institution.participant.name
            if name in idle:
                continue
            state, anew = self._states.get(name, {}), name in attendance.anew
            trained.append(institution.train(round, broadcast, state, anew))
            if trained[-1].state:
                self._states[name] = trained[-1].state
        return trained

    def _train_buffered(self, round: int, attendance: Attendance) -> RoundOutcome:
        began = time.perf_counter()
        starting = self._buffered.idle(attendance)
        others = [p.name for p in self._plan.participants if p.name not in starting]
        for t in self._train(round, attendance, others):
            self._buffered.send(round, attendance.now, t.record, t.payload)
        collected = time.perf_counter()
        arrived = self._buffered.arrive(round)
        aggregation = self._server.aggregate(
            round, [(c.flight.institution, c.payload) for c in arrived]
        )
        times = (began, collected, time.perf_counter())
        return buffered_outcome(self._buffered, round, attendance, arrived, aggregation, times)

    def _train_securely(self, round: int, attendance: Attendance) -> RoundOutcome:
        began = time.perf_counter()
        broadcast = self._server.broadcast()
        answer: Answer = b""
        records: list[TrainRecord] = []
        messages: list[tuple[str, bytes | memoryview]] = []
        present = [i for i in self._participants if i.participant.name not in attendance.absent]
        for step in self._plan.steps:
            messages = []
            for i in present:
                name = i.participant.name
                reply = i.secure_step(step, round, answer, broadcast, name in attendance.anew)
                records += [reply.record] if reply.record is not None else []
                messages += [(name, reply.message)] if reply.message else []
            if step == self._plan.steps[-1]:
                revealed = self._server.reveal(round, messages)
                break
            following = self._server.secure_step(step, round, messages)
            if following is None:
                revealed = self._server.lost(round)
                break
            answer = following
        collected = time.perf_counter()
        aggregation = self._server.aggregate_revealed(round, revealed)
        return secure_outcome(
            self._plan,
            round,
            attendance,
            records,
            (revealed.traffic, revealed.dropouts),
            aggregation,
            (began, collected, time.perf_counter()),
        )

    def evaluate(self, round: int, views: dict[str, tuple[View, ...]]) -> list[Scores]:
        """Score the global model."""
        weights = self._server.released()
        return [i.evaluate(weights, views[i.participant.domain]) for i in self._participants]

    def save(self, folder: Path) -> None:
        """Write a checkpoint."""
        carried = self._buffered.carried
        checkpoints.save(folder, self._server.checkpoint(self._states, carried))

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
