"""The executor that stays in this process: for debugging, tests, tiny runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from fedfuse_ray.blocks import Blocks
from fedfuse_ray.data.dataset import Dataset
from fedfuse_ray.federation.checkpoints import checkpoint as checkpoints
from fedfuse_ray.federation.checkpoints.checkpoint import Checkpoint
from fedfuse_ray.federation.checkpoints.promise import Journal
from fedfuse_ray.federation.institution.institution import Institution, NetCache, pin_threads
from fedfuse_ray.federation.messages.downlink import Broadcast
from fedfuse_ray.federation.messages.metrics import Scores, View
from fedfuse_ray.federation.messages.records import Alone, Carried, TrainRecord
from fedfuse_ray.federation.messages.updates import Kept
from fedfuse_ray.federation.modes.delivery import Sent
from fedfuse_ray.federation.modes.exchange import Answer, Turn
from fedfuse_ray.federation.modes.outcome import EVERYONE, Attendance, Closed, RoundOutcome
from fedfuse_ray.federation.modes.sides import InstitutionSide, ServerSide
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.plan.transfer import first_weights
from fedfuse_ray.federation.rounds.driver import RoundDriver

Messages = Sequence[tuple[str, bytes]]
"""Sender and message."""


class SerialCalls:
    """Calls institutions one after the other, and the server, in this process.

    Args:
        sides: The institutions.
        server: The server.
        kept: What institutions keep, by name.
        journal: Where survivors are kept before their sums are unmasked.
        attempts: Counts the rounds that this session has begun.
    """

    def __init__(
        self,
        sides: Sequence[InstitutionSide],
        server: ServerSide,
        kept: dict[str, Kept],
        journal: Journal,
        attempts: Iterator[int],
    ) -> None:
        self._sides, self._server, self.kept, self._journal = sides, server, kept, journal
        self._attempts, self._epoch = attempts, 0
        self._broadcast = Broadcast(0, {}, {})
        self._answer = Answer()

    def begin(self, round: int, epoch: int) -> None:
        """Have the server broadcast."""
        attempt, self._epoch = next(self._attempts), epoch
        self._journal.begin(attempt)
        self._broadcast, self._answer = self._server.server.begin(attempt, epoch), Answer()

    def take(
        self, step: str, round: int, idle: Sequence[str], behind: Sequence[str]
    ) -> tuple[Sent[Messages], list[TrainRecord]]:
        """Let all institutions but the idle ones take a step."""
        messages: list[tuple[str, bytes]] = []
        records = []
        for side in self._sides:
            name = side.institution.name
            if name in idle:
                continue
            kept = self.kept.get(name, Kept())
            turn = Turn(
                round, self._answer, self._broadcast, kept, name in behind, self._journal.memory
            )
            reply = side.take(step, turn)
            if reply.message is not None:
                messages.append((name, reply.message))
            if reply.record is not None:
                records.append(reply.record)
            if reply.kept:
                self.kept[name] = reply.kept
        return [(messages, [name for name, _ in messages])], records

    def close(self, step: str, round: int, sent: Sent[Messages]) -> bool:
        """Have the server close a step before the last."""
        answer = self._server.close(step, round, _wanted(sent))
        self._journal.note(round, self._epoch, self._server.survivors)
        self._answer = answer or Answer()
        return answer is not None

    def finish(self, round: int, sent: Sent[Messages]) -> Closed:
        """Have the server close the last step, and step itself."""
        return self._server.finish(round, _wanted(sent))

    def lost(self, round: int) -> Closed:
        """Have the server end a round that is lost."""
        return self._server.lost(round)


def _wanted(sent: Sent[Messages]) -> list[tuple[str, bytes]]:
    return [(who, data) for messages, names in sent for who, data in messages if who in names]


class SerialExecutor:
    """All participants one after the other in this process: for debugging, tests, tiny runs."""

    kind = "serial"

    def __init__(self) -> None:
        self._sides: list[InstitutionSide] = []
        self._attempts = itertools.count()

    def start(self, plan: Plan, dataset: Path) -> None:
        """Create the participants."""
        pin_threads()
        self._plan = plan
        nets = NetCache(plan)
        data = Dataset(dataset)
        self._sides = [InstitutionSide(Institution(plan, p, data, nets)) for p in plan.participants]

    def load(self, path: Path | None, journal: Path | None = None) -> None:
        """Set server and institutions to a checkpoint, or to the seeded initial weights."""
        checkpoint = (
            checkpoints.read(path) if path else Checkpoint(0, first_weights(self._plan.spec))
        )
        self._server = ServerSide(self._plan, checkpoint)
        self._calls = SerialCalls(
            self._sides,
            self._server,
            dict(checkpoint.institutions),
            Journal(journal),
            self._attempts,
        )
        carried: dict[str, Carried[Messages]] = {
            who: Carried(c.flight, c.record, [(who, c.payload)])
            for who, c in checkpoint.carried.items()
        }
        self._driver = RoundDriver(self._plan, self._calls, carried)

    @property
    def institutions(self) -> list[Institution]:
        """The participants; none before the start and after the end."""
        return [side.institution for side in self._sides]

    @property
    def kept(self) -> dict[str, Kept]:
        """What institutions keep, by name."""
        return self._calls.kept

    @property
    def weights(self) -> Blocks:
        """The global weights."""
        return self._server.server.weights

    def noise_factor(self) -> float:
        """Return the factor on the next round's noise."""
        return self._server.server.state.released.factor

    def train(self, round: int, attendance: Attendance = EVERYONE, epoch: int = 0) -> RoundOutcome:
        """Run one round."""
        return self._driver.run(round, attendance, epoch)

    def evaluate(self, round: int, views: dict[str, tuple[View, ...]]) -> list[Scores]:
        """Score the global model."""
        weights = self._server.server.model()
        return [i.evaluate(weights, views[i.participant.domain]) for i in self.institutions]

    def save(self, folder: Path) -> None:
        """Write a checkpoint."""
        carried = {
            who: Carried(c.flight, c.record, dict(c.payload)[who])
            for who, c in self._driver.carried.items()
        }
        checkpoints.save(folder, self._server.server.checkpoint(self.kept, carried))

    def sha256(self) -> str:
        """Return the digest of the global weights."""
        return self._server.server.sha256()

    def train_alone(
        self, names: Sequence[str], views: dict[str, tuple[View, ...]]
    ) -> Iterator[Alone]:
        """Train the named participants one after the other."""
        for institution in self.institutions:
            if institution.name in names:
                yield institution.train_alone(views[institution.participant.domain])

    def block_sizes(self) -> dict[str, int]:
        """Return the number of parameters of each block."""
        return dict(self._server.server.sizes)

    def close(self) -> None:
        """Drop the participants and their data."""
        self._sides = []
