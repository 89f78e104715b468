"""The parameter server: broadcast, aggregate block by block, step. Needs numpy only."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from fedfuse_ray import blocks as blocks_
from fedfuse_ray.blocks import Blocks
from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.federation.checkpoints.checkpoint import Checkpoint
from fedfuse_ray.federation.checkpoints.state import ServerState
from fedfuse_ray.federation.messages import wire
from fedfuse_ray.federation.messages.downlink import Broadcast
from fedfuse_ray.federation.messages.records import Carried
from fedfuse_ray.federation.messages.released import Released
from fedfuse_ray.federation.messages.updates import Kept
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.server.acceptance import check
from fedfuse_ray.federation.server.adaptation import Adaptation
from fedfuse_ray.federation.server.summing import Summing, Total
from fedfuse_ray.federation.strategies import STRATEGIES, Aggregate, Standing


@dataclass(frozen=True)
class Aggregation:
    """What the server says of a round.

    Attributes:
        accepted: Bytes received from each institution whose update is in the sum.
        refused: Sender, as far as known, and reason of each update that was turned away.
    """

    accepted: Mapping[str, int]
    refused: tuple[tuple[str, str], ...]


class ParameterServer:
    """Holds the global weights and the server's state between rounds.

    Args:
        plan: The federation's plan.
        checkpoint: Where to go on from.

    Attributes:
        round: The last round that is in the weights.
        weights: The global model.
        state: All else that the next round depends on.
        sizes: Each block's length.
        adaptation: What the adaptive policy chooses from.
        attempt: How often the round that goes on was begun before, in this session.
        epoch: How often its noise was drawn anew.
    """

    def __init__(self, plan: Plan, checkpoint: Checkpoint) -> None:
        self.plan = plan
        self.round, self.attempt, self.epoch = checkpoint.round, 0, 0
        self.weights = dict(checkpoint.weights)
        self.sizes = {name: vector.size for name, vector in self.weights.items()}
        self._summing = Summing(plan, self.sizes)
        senders = {block: len(names) for block, names in plan.owners.items()}
        self.adaptation = Adaptation(plan.experiment.compression, senders)
        strategy = plan.experiment.strategy
        self._strategy = STRATEGIES[strategy.kind](strategy)
        self.state = checkpoint.server or self._first_state()

    def _first_state(self) -> ServerState:
        terms, released = self.plan.privacy, Released()
        if terms is not None:
            released = Released(
                clip_norm=terms.config.clip_norm if terms.adaptive else None,
                noise_factor=1.0 if terms.spends_adaptively else None,
            ).as_sent()
        return ServerState(strategy=self._strategy.init(self.weights), released=released)

    def begin(self, attempt: int, epoch: int = 0) -> Broadcast:
        """Begin the next round, for the first time or again; returns what institutions are sent."""
        self.attempt, self.epoch = attempt, epoch
        return self.broadcast()

    def broadcast(self) -> Broadcast:
        """Return what institutions are sent for the next round; asking again gives the same."""
        held, next_round = self.state.held, self.round + 1
        controls = self._strategy.controls(self.state.strategy)
        changes: Mapping[str, bytes] = {}
        if held:
            changes = self.plan.downlink.changes(self.weights, held, next_round)
        base, released = held or self.weights, self.state.released
        return Broadcast(next_round, base, changes, controls, released, self.attempt, self.epoch)

    def check(self, message: wire.Message, round: int, seen: Collection[str]) -> None:
        """Check an update before it goes into a round's sum.

        Args:
            message: The update, unpacked.
            round: From 1.
            seen: Whose updates are in the sum already.

        Raises:
            ProtocolError: Why it can't be in the sum.
        """
        used = self.state.used.get(message.institution)
        check(self.plan, message, round, seen, used, self.sizes)

    def add_up(self, messages: Mapping[str, wire.Message], round: int) -> Total:
        """Decode checked updates and add them up in participants' order."""
        ordered = [messages[name] for name in self.plan.by_name if name in messages]
        return self._summing.add_up(ordered, round, self.state.released.settings)

    def step(self, round: int, total: Total, state: ServerState) -> None:
        """Make means of a round's sums, and step along them.

        Args:
            round: From 1.
            total: The sums.
            state: The state to go on from.
        """
        aggregate, tracked = self._summing.aggregate(total, round, state.tracked)
        if self.plan.coding.adapts(secure=False) and aggregate.mean:
            chosen = self.adaptation.after_mean(aggregate.mean)
            settings = {**state.released.settings, **chosen}
            state = replace(state, released=replace(state.released, settings=settings).as_sent())
        self.advance(round, aggregate, replace(state, tracked=tracked))

    def advance(self, round: int, aggregate: Aggregate, state: ServerState) -> None:
        """Let the strategy step, and average the last models where that is asked for.

        Args:
            round: From 1.
            aggregate: The round's block-wise means.
            state: The state to go on from.
        """
        if self.plan.downlink.sends_changes:
            state = replace(state, held=self.plan.downlink.weights(self.broadcast()))
        before = Standing(weights=self.weights, state=state.strategy)
        after = self._strategy.apply(before, aggregate)
        self.weights, self.round = after.weights, round
        self.state = replace(
            state, strategy=after.state, average=self._averaged(round, state.average)
        )

    def _averaged(self, round: int, average: Blocks) -> Blocks:
        """Return the mean of the models since the average began; empty before."""
        experiment = self.plan.experiment
        rounds, fraction = experiment.training.rounds, experiment.strategy.average_last
        first = rounds - math.ceil(fraction * rounds) + 1
        if round < first:
            return average
        share = np.float32(1 / (round - first + 1))
        means = {n: average.get(n, np.zeros_like(vector)) for n, vector in self.weights.items()}
        return {n: means[n] + share * (vector - means[n]) for n, vector in self.weights.items()}

    def model(self) -> Blocks:
        """Return the model that is scored and given out: the last, or an average of the last."""
        return self.weights | self.state.average

    def checkpoint(
        self, institutions: Mapping[str, Kept], carried: Mapping[str, Carried[bytes]] = {}
    ) -> Checkpoint:
        """Return the state after the last round."""
        return Checkpoint(self.round, self.weights, self.state, institutions, carried)

    def sha256(self) -> str:
        """Return the digest of the model."""
        return blocks_.sha256(self.model())

    def follows(self, round: int) -> None:
        """Check that a round is the next one.

        Raises:
            ProtocolError: It is not.
        """
        if round != self.round + 1:
            raise ProtocolError(f"round {round} can't follow round {self.round}")
