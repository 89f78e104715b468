"""The parameter server: broadcast, aggregate block by block, step. Needs numpy only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedfuse_ray import blocks as blocks_
from fedfuse_ray.blocks import Blocks
from fedfuse_ray.errors import NotReadyError, ProtocolError
from fedfuse_ray.federation import wire
from fedfuse_ray.federation.checkpoint import Checkpoint
from fedfuse_ray.federation.plan import Plan
from fedfuse_ray.federation.secure_round import (
    CLIP_NORM,
    STEPS,
    Answer,
    Gathering,
    Revealed,
    mean_gradients,
    next_clip_norm,
)
from fedfuse_ray.federation.strategies import CONTROL, STRATEGIES, Aggregate
from fedfuse_ray.federation.transforms import build_chain, undo_chain

_CODEC = "fp32"
_AVERAGE = "average/"


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
        self._gathering: Gathering | None = None
        self._state = dict(checkpoint.strategy) or self._first_state()

    def _first_state(self) -> Blocks:
        terms = self.plan.privacy
        state = self._strategy.init(self.weights)
        if terms is not None and terms.adaptive:
            state |= {CLIP_NORM: np.array([terms.config.clip_norm], np.float32)}
        return state

    def broadcast(self) -> Blocks:
        """Return what institutions need for the next round: weights, and the strategy's vectors."""
        clip = {CLIP_NORM: self._state[CLIP_NORM]} if CLIP_NORM in self._state else {}
        return self.weights | self._strategy.broadcast(self._state) | clip

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
                message = wire.unpack(payload)
            except ProtocolError as error:
                refused.append(("unknown", str(error)))
                continue
            if objection := self._objection(message, round, messages):
                refused.append((message.institution, objection))
                continue
            messages[message.institution], sizes[message.institution] = message, len(payload)
        if not messages:
            raise ProtocolError(
                f"round {round} received no update that could be accepted: {refused}"
            )
        ordered = [messages[p.name] for p in self.plan.participants if p.name in messages]
        self._advance(round, self._sum(ordered, round))
        return Aggregation({m.institution: sizes[m.institution] for m in ordered}, tuple(refused))

    def secure_step(
        self, step: str, round: int, messages: Sequence[tuple[str, bytes | memoryview]]
    ) -> Answer:
        """Take the members' messages of one step of a secure round, and answer them.

        Raises:
            ProtocolError: `round` is not the next one, or too few members are left.
            NotReadyError: The round was begun by a process that is gone.
        """
        if round != self.round + 1:
            raise ProtocolError(f"round {round} can't follow round {self.round}")
        if step == STEPS[0]:
            sizes = {name: vector.size for name, vector in self.weights.items()}
            self._gathering = Gathering(self.plan, sizes, round)
        return self._gathered(round).step(step, messages)

    def reveal(self, round: int, messages: Sequence[tuple[str, bytes | memoryview]]) -> Revealed:
        """Take the members' last messages and return the sums, which change nothing yet."""
        revealed = self._gathered(round).reveal(messages)
        self._gathering = None
        return revealed

    def aggregate_revealed(self, round: int, revealed: Revealed) -> Aggregation:
        """Step along a secure round's sums."""
        if round != self.round + 1:
            raise ProtocolError(f"round {round} can't follow round {self.round}")
        means = mean_gradients(revealed, self.plan)
        if CLIP_NORM in self._state:
            moved = next_clip_norm(revealed, self.plan, float(self._state[CLIP_NORM][0]))
            self._state = self._state | {CLIP_NORM: np.array([moved], np.float32)}
        everyone = {name: len(self.plan.owners[name]) for name in means}
        aggregate = Aggregate(
            mean=means,
            steps=dict.fromkeys(means, 1.0),
            participation={n: len(revealed.owners[n]) / everyone[n] for n in means},
        )
        self._advance(round, aggregate)
        return Aggregation(revealed.uplink_bytes, revealed.refused)

    def _gathered(self, round: int) -> Gathering:
        if self._gathering is None or self._gathering.round != round:
            raise NotReadyError(f"the server has not begun round {round}")
        return self._gathering

    def _advance(self, round: int, aggregate: Aggregate) -> None:
        """Let the strategy step, and average the last models where that is asked for."""
        self.weights, self._state = self._strategy.apply(self._state, self.weights, aggregate)
        self.round = round
        experiment = self.plan.experiment
        rounds, fraction = experiment.training.rounds, experiment.strategy.average_last
        first = rounds - math.ceil(fraction * rounds) + 1
        if round < first:
            return
        share = np.float32(1 / (round - first + 1))
        for name, vector in self.weights.items():
            mean = self._state.get(_AVERAGE + name, np.zeros_like(vector))
            self._state[_AVERAGE + name] = mean + share * (vector - mean)

    def released(self) -> Blocks:
        """Return the model that is scored and given out: the last, or an average of the last."""
        averaged = {
            name.removeprefix(_AVERAGE): vector
            for name, vector in self._state.items()
            if name.startswith(_AVERAGE)
        }
        return self.weights | averaged

    def checkpoint(self, institutions: Mapping[str, Blocks]) -> Checkpoint:
        """Return the state after the last round."""
        return Checkpoint(self.round, self.weights, self._state, dict(institutions))

    def sha256(self) -> str:
        """Return the digest of the released weights."""
        return blocks_.sha256(self.released())

    def _objection(
        self, message: wire.Message, round: int, seen: Mapping[str, wire.Message]
    ) -> str | None:
        """Return why an update can't be in the round's sum, or None."""
        participant = self.plan.by_name.get(message.institution)
        if participant is None:
            return "not a participant of this federation"
        if message.round != round:
            return f"sent an update of round {message.round} in round {round}"
        if message.institution in seen:
            return f"sent two updates in round {round}"
        if message.codec != _CODEC:
            return f"encoded its update as {message.codec}, where {_CODEC} was agreed"
        owned = set(self.plan.blocks_of(participant))
        for name, payload in message.blocks.items():
            if name.removeprefix(CONTROL) not in owned:
                return f"sent the block {name}, which it does not own"
            size = self.weights[name.removeprefix(CONTROL)].size
            if message.sizes[name] != size or len(payload) != 4 * size:
                return (
                    f"sent {len(payload)} bytes for {message.sizes[name]} values as block {name}, "
                    f"which has {size}"
                )
        return None

    def _sum(self, messages: Sequence[wire.Message], round: int) -> Aggregate:
        sums: Blocks = {}
        survivors: dict[str, tuple[str, ...]] = {}
        if self.plan.privacy is not None and self.plan.privacy.config.mode == "client":
            # A sample may be empty; the noise is released all the same.
            sums = {name: np.zeros_like(vector) for name, vector in self.weights.items()}
            survivors = dict.fromkeys(sums, ())
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
        if not total:
            return 0.0
        return sum(fractions[name] * steps[name] for name in who) / total
