"""The parameter server: broadcast, aggregate block by block, step. Needs numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedfuse_ray import blocks as blocks_
from fedfuse_ray.blocks import Blocks
from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.federation import wire
from fedfuse_ray.federation.checkpoint import Checkpoint
from fedfuse_ray.federation.plan import Plan
from fedfuse_ray.federation.strategies import CONTROL, STRATEGIES, Aggregate
from fedfuse_ray.federation.transforms import build_chain, undo_chain


@dataclass(frozen=True)
class Aggregation:
    """What the server says of a round.

    Attributes:
        accepted: Bytes received from each institution whose update is in the sum.
        refused: Sender, as far as known, and reason of each update that was turned away.
    """

    accepted: Mapping[str, int]
    refused: tuple[tuple[str, str], ...]


class Server:
    """Holds the global weights and the strategy's state between rounds."""

    def __init__(self, plan: Plan, checkpoint: Checkpoint) -> None:
        self.plan = plan
        self.round = checkpoint.round
        self.weights = dict(checkpoint.weights)
        self._chain = build_chain(plan)
        strategy = plan.experiment.strategy
        self._strategy = STRATEGIES[strategy.kind](strategy)
        self._state = dict(checkpoint.strategy) or self._strategy.init(self.weights)

    def broadcast(self) -> Blocks:
        """Return what institutions need for the next round: weights, and the strategy's vectors."""
        return self.weights | self._strategy.broadcast(self._state)

    def aggregate(self, round: int, payloads: Sequence[bytes | memoryview]) -> Aggregation:
        """Check, sum in participants' order, and step.

        An update that is altered, from another round, from a stranger, or sent twice is refused
        and reported; the others go on.

        Raises:
            ProtocolError: `round` is not the next one, or no update was left to aggregate.
        """
        if round != self.round + 1:
            raise ProtocolError(f"round {round} can't follow round {self.round}")
        messages: dict[str, wire.Message] = {}
        sizes: dict[str, int] = {}
        refused: list[tuple[str, str]] = []
        for payload in payloads:
            try:
                message = self._admit(wire.unpack(payload), round, messages)
            except ProtocolError as error:
                refused.append(_refusal(error))
                continue
            messages[message.institution], sizes[message.institution] = message, len(payload)
        if not messages:
            raise ProtocolError(
                f"round {round} received no update that could be accepted: {refused}"
            )
        ordered = [messages[p.name] for p in self.plan.participants if p.name in messages]
        self.weights, self._state = self._strategy.apply(
            self._state, self.weights, self._sum(ordered, round)
        )
        self.round = round
        return Aggregation({m.institution: sizes[m.institution] for m in ordered}, tuple(refused))

    def checkpoint(self, institutions: Mapping[str, Blocks]) -> Checkpoint:
        """Return the state after the last round."""
        return Checkpoint(self.round, self.weights, self._state, dict(institutions))

    def sha256(self) -> str:
        """Return the digest of the global weights."""
        return blocks_.sha256(self.weights)

    def _admit(
        self, message: wire.Message, round: int, seen: Mapping[str, wire.Message]
    ) -> wire.Message:
        who = message.institution
        participant = self.plan.by_name.get(who)
        if participant is None:
            raise ProtocolError(f"{who}: not a participant of this federation")
        if message.round != round:
            raise ProtocolError(f"{who}: sent an update of round {message.round} in round {round}")
        if who in seen:
            raise ProtocolError(f"{who}: sent two updates in round {round}")
        owned = set(self.plan.blocks_of(participant))
        for name in message.blocks:
            if name.removeprefix(CONTROL) not in owned:
                raise ProtocolError(f"{who}: sent the block {name}, which it does not own")
            if message.sizes[name] != self.weights[name.removeprefix(CONTROL)].size:
                raise ProtocolError(f"{who}: sent {message.sizes[name]} values as block {name}")
        return message

    def _sum(self, messages: Sequence[wire.Message], round: int) -> Aggregate:
        sums: Blocks = {}
        survivors: dict[str, tuple[str, ...]] = {}
        steps = {m.institution: m.steps for m in messages}
        for message in messages:
            for name, payload in message.blocks.items():
                vector = np.frombuffer(payload, "<f4")
                sums[name] = sums[name] + vector if name in sums else vector
                survivors[name] = (*survivors.get(name, ()), message.institution)
        mean = undo_chain(self._chain, sums, survivors, round)
        return Aggregate(
            mean=mean,
            steps={name: self._mean_steps(name, survivors[name], steps) for name in mean},
            participation={
                name: len(survivors[name]) / len(self.plan.owners[name.removeprefix(CONTROL)])
                for name in mean
            },
        )

    def _mean_steps(self, block: str, who: tuple[str, ...], steps: Mapping[str, int]) -> float:
        fractions = self.plan.fractions[block.removeprefix(CONTROL)]
        total = sum(fractions[name] for name in who)
        return sum(fractions[name] * steps[name] for name in who) / total


def _refusal(error: ProtocolError) -> tuple[str, str]:
    who, separator, reason = str(error).partition(": ")
    return (who, reason) if separator else ("unknown", str(error))
