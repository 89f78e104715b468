"""The parameter server: broadcast, aggregate block by block, step. Needs numpy only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedfuse_ray import blocks as blocks_
from fedfuse_ray.blocks import Blocks
from fedfuse_ray.compression.codec import Setting
from fedfuse_ray.errors import NotReadyError, ProtocolError
from fedfuse_ray.federation.checkpoints.checkpoint import Checkpoint
from fedfuse_ray.federation.messages import wire
from fedfuse_ray.federation.messages.coding import SETTING
from fedfuse_ray.federation.messages.downlink import Broadcast
from fedfuse_ray.federation.modes.buffered import Carried
from fedfuse_ray.federation.modes.encrypted import EncryptedGathering
from fedfuse_ray.federation.modes.integers import (
    RELEASED_TERMS,
    mean_gradients,
    modulus_bits,
    noise_factor,
)
from fedfuse_ray.federation.modes.masked import Answer, Gathering, Revealed
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.server.acceptance import objection
from fedfuse_ray.federation.server.adaptation import Adaptation
from fedfuse_ray.federation.server.released_terms import first_terms, next_terms
from fedfuse_ray.federation.server.strategies import STRATEGIES, Aggregate
from fedfuse_ray.federation.server.summing import Summing, Total
from fedfuse_ray.privacy.mechanisms.homomorphic import from_fixed_point

_AVERAGE = "average/"
_HELD = "held/"
"""What institutions hold after the broadcasts so far, where these send changes."""
_USED = "used/"
"""Round of the last update of an institution that an asynchronous server has used."""


@dataclass(frozen=True)
class Aggregation:
    """What the server says of a round.

    Attributes:
        accepted: Bytes received from each institution whose update is in the sum.
        refused: Sender, as far as known, and reason of each update that was turned away.
    """

    accepted: Mapping[str, int]
    refused: tuple[tuple[str, str], ...]


def released(weights: Blocks, state: Blocks) -> Blocks:
    """Return the model that is given out, from the weights and the server's state."""
    return weights | _stripped(state, _AVERAGE)


class Server:
    """Holds the global weights and the strategy's state between rounds."""

    def __init__(self, plan: Plan, checkpoint: Checkpoint) -> None:
        self.plan = plan
        self.round = checkpoint.round
        self.weights = dict(checkpoint.weights)
        self._sizes = {name: vector.size for name, vector in self.weights.items()}
        self._summing = Summing(plan, self._sizes)
        senders = {block: len(names) for block, names in plan.owners.items()}
        self._adaptation = Adaptation(plan.experiment.compression, senders)
        strategy = plan.experiment.strategy
        self._strategy = STRATEGIES[strategy.kind](strategy)
        self._gathering: Gathering | EncryptedGathering | None = None
        self._state = dict(checkpoint.strategy) or self._first_state()

    def _first_state(self) -> Blocks:
        return self._strategy.init(self.weights) | first_terms(self.plan)

    @property
    def noise_factor(self) -> float:
        """The factor on the next round's noise; 1 unless the schedule is adaptive."""
        return noise_factor(self._state)

    def broadcast(self) -> Broadcast:
        """Return what institutions are sent for the next round; asking again gives the same."""
        extra = dict(self._strategy.broadcast(self._state))
        extra |= {
            n: v for n, v in self._state.items() if n in RELEASED_TERMS or n.startswith(SETTING)
        }
        held = _stripped(self._state, _HELD)
        if not held:
            return Broadcast(self.round + 1, self.weights, {}, extra)
        changes = self.plan.downlink.changes(self.weights, held, self.round + 1)
        return Broadcast(self.round + 1, held, changes, extra)

    def aggregate(
        self, round: int, payloads: Sequence[tuple[str, bytes | memoryview]]
    ) -> Aggregation:
        """Check, sum in participants' order, and step.

        An update that is altered, from another round, from a stranger, in another's name, or sent
        twice is refused and reported; the others go on.

        Args:
            round: From 1.
            payloads: Who brought each update, as the transport says, and its bytes.

        Raises:
            ProtocolError: `round` is not the next one, or no update was left to aggregate.
        """
        if round != self.round + 1:
            raise ProtocolError(f"round {round} can't follow round {self.round}")
        messages: dict[str, wire.Message] = {}
        sizes: dict[str, int] = {}
        refused: list[tuple[str, str]] = []
        for sender, payload in payloads:
            try:
                message = wire.unpack(payload)
            except ProtocolError as error:
                refused.append((sender, str(error)))
                continue
            if sender != message.institution:
                refused.append((sender, f"sent an update in the name of {message.institution}"))
                continue
            if objection := self._objection(message, round, messages):
                refused.append((sender, objection))
                continue
            messages[message.institution], sizes[message.institution] = message, len(payload)
        ordered = [messages[p.name] for p in self.plan.participants if p.name in messages]
        total = self._summing.add_up(ordered, round, self._state)
        refused += total.refused
        if self.plan.asynchronous:
            self._state = self._state | {
                _USED + name: np.array([messages[name].round], np.float32)
                for name in total.accepted
            }
        if refused and not total.accepted:
            raise ProtocolError(
                f"round {round} received no update that could be accepted: {refused}"
            )
        self._step(round, total)
        accepted = {name: sizes[name] for name in total.accepted}
        return Aggregation(accepted, tuple(refused))

    def secure_step(
        self, step: str, round: int, messages: Sequence[tuple[str, bytes | memoryview]]
    ) -> Answer | None:
        """Take the members' messages of one step of a secure round, and answer them.

        None says that too few members are left: the round is lost, and `lost` ends it.

        Raises:
            ProtocolError: `round` is not the next one.
            NotReadyError: The round was begun by a process that is gone.
        """
        if round != self.round + 1:
            raise ProtocolError(f"round {round} can't follow round {self.round}")
        if step == self.plan.steps[0]:
            self._gathering = self._gather(round)
        return self._gathered(round).step(step, messages)

    def _gather(self, round: int) -> Gathering | EncryptedGathering:
        if self.plan.coding.encrypted:
            return EncryptedGathering(self.plan, round, self._objection)
        return Gathering(self.plan, self._sizes, round, self._state)

    def reveal(self, round: int, messages: Sequence[tuple[str, bytes | memoryview]]) -> Revealed:
        """Take the members' last messages and return the sums, which change nothing yet."""
        revealed = self._gathered(round).reveal(messages)
        self._gathering = None
        return revealed

    def lost(self, round: int) -> Revealed:
        """Return what a round reveals of which too few members are left: nothing."""
        revealed = self._gathered(round).lost()
        self._gathering = None
        return revealed

    def aggregate_revealed(self, round: int, revealed: Revealed) -> Aggregation:
        """Step along a secure round's sums."""
        if round != self.round + 1:
            raise ProtocolError(f"round {round} can't follow round {self.round}")
        if self.plan.coding.encrypted:
            sums = {name: from_fixed_point(words) for name, words in revealed.sums.items()}
            factors = dict.fromkeys(revealed.steps, 1.0)
            total = Total(sums, dict(revealed.owners), dict(revealed.steps), factors)
            self._step(round, total)
            return Aggregation(revealed.sent, revealed.refused)
        state = self._state
        means = mean_gradients(revealed.sums, revealed.owners, self.plan, self._sizes, round, state)
        following = next_terms(revealed, self.plan, round, state)
        if self.plan.coding.adapts(secure=True):
            bits = {n: modulus_bits(self.plan, n, state) for n in means}
            masked = {name: revealed.sums[name] for name in means}
            finer = max(1.0, noise_factor(state) / noise_factor(following))
            self._set(self._adaptation.after_secure_sum(masked, bits, finer))
        self._state = self._state | following
        everyone = {name: len(self.plan.owners[name]) for name in means}
        aggregate = Aggregate(
            mean=means,
            steps=dict.fromkeys(means, 1.0),
            participation={n: len(revealed.owners[n]) / everyone[n] for n in means},
        )
        self._advance(round, aggregate)
        return Aggregation(revealed.sent, revealed.refused)

    def _set(self, chosen: Mapping[str, Setting]) -> None:
        """Keep the policy's choices for the next round, to be broadcast."""
        self._state = self._state | {
            SETTING + name: np.array([setting.bits, setting.fraction], np.float32)
            for name, setting in chosen.items()
        }

    def _gathered(self, round: int) -> Gathering | EncryptedGathering:
        if self._gathering is None or self._gathering.round != round:
            raise NotReadyError(f"the server has not begun round {round}")
        return self._gathering

    def _step(self, round: int, total: Total) -> None:
        aggregate, gained = self._summing.aggregate(total, round, self._state)
        self._state = self._state | gained
        self._advance(round, aggregate)

    def _advance(self, round: int, aggregate: Aggregate) -> None:
        """Let the strategy step, and average the last models where that is asked for."""
        if self.plan.downlink.sends_changes:
            held = self.plan.downlink.weights(self.broadcast())
            self._state = self._state | {_HELD + name: vector for name, vector in held.items()}
        if self.plan.coding.adapts(secure=False) and aggregate.mean:
            released = {n: v for n, v in aggregate.mean.items() if n in self.weights}
            self._set(self._adaptation.after_mean(released))
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
        return released(self.weights, self._state)

    def checkpoint(
        self, institutions: Mapping[str, Blocks], carried: Mapping[str, Carried] = {}
    ) -> Checkpoint:
        """Return the state after the last round."""
        return Checkpoint(self.round, self.weights, self._state, dict(institutions), dict(carried))

    def sha256(self) -> str:
        """Return the digest of the released weights."""
        return blocks_.sha256(self.released())

    def _objection(
        self, message: wire.Message, round: int, seen: Mapping[str, object]
    ) -> str | None:
        """Return why an update can't be in the round's sum, or None."""
        used = self._state.get(_USED + message.institution)
        last = None if used is None else float(used[0])
        return objection(self.plan, message, round, seen, last, self._sizes)


def _stripped(state: Blocks, prefix: str) -> Blocks:
    """Return the vectors whose names begin with a prefix, under what follows it."""
    return {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
