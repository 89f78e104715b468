"""From updates that were accepted to block-wise means: decode, weigh, add, undo the transforms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedfuse_ray.blocks import Blocks, Vector
from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.federation.messages import wire
from fedfuse_ray.federation.messages.coding import Settings
from fedfuse_ray.federation.messages.transforms import clipped
from fedfuse_ray.federation.messages.updates import Update
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.server.weighting import correction, loss_factors
from fedfuse_ray.federation.strategies import Aggregate
from fedfuse_ray.network import staleness_weight


@dataclass
class Total:
    """Block-wise sums while they are taken, and who is in them.

    Attributes:
        sums: The sums.
        survivors: By block, whose update of it is in the sum.
        steps: Local optimizer steps, by institution.
        factors: What each institution's update was weighed by.
        accepted: Whose updates are in.
        refused: Sender and reason of each update that could not be decoded.
    """

    sums: Update = field(default_factory=Update)
    survivors: dict[str, tuple[str, ...]] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    factors: dict[str, float] = field(default_factory=dict)
    accepted: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)

    def add(self, message: wire.Message, update: Update, factor: float) -> None:
        """Add one update, which is weighed by a factor already."""
        sender = message.institution
        self.factors[sender] = factor
        self.accepted.append(sender)
        self.steps[sender] = message.steps
        self.sums = added(self.sums, update)
        for name in update.weights:
            self.survivors[name] = (*self.survivors.get(name, ()), sender)


def added(sums: Update, update: Update) -> Update:
    """Return block-wise sums with one update more."""
    return Update(_added(sums.weights, update.weights), _added(sums.controls, update.controls))


def _added(sums: Blocks, more: Blocks) -> Blocks:
    return sums | {name: sums[name] + v if name in sums else v for name, v in more.items()}


class Summing:
    """Takes a round's sums, and the means from them.

    Args:
        plan: The federation's plan.
        sizes: Each block's length.
    """

    def __init__(self, plan: Plan, sizes: Mapping[str, int]) -> None:
        self._plan, self._sizes = plan, sizes

    def add_up(self, messages: Sequence[wire.Message], round: int, settings: Settings) -> Total:
        """Decode one update after the other and add them up; those that can't be are refused."""
        total = Total()
        factors = self._factors(messages)
        for message in messages:
            factor = factors.get(message.institution, 1.0)
            try:
                decoded = self._decoded(message, settings)
            except ProtocolError as error:
                total.refused.append((message.institution, str(error)))
                continue
            total.add(message, self._weighed(decoded, round - message.round, factor), factor)
        return total

    def _factors(self, messages: Sequence[wire.Message]) -> dict[str, float]:
        """Return what each update counts by its sender's loss; empty where that does not matter."""
        strategy = self._plan.experiment.strategy
        losses = {m.institution: m.loss for m in messages if m.loss is not None}
        return loss_factors(losses, strategy.loss_exponent) if self._plan.weighs_by_loss else {}

    def _weighed(self, update: Update, staleness: int, factor: float) -> Update:
        """Weigh an update by its age, and by its sender's loss; control variates are not."""
        if staleness:
            exponent = self._plan.experiment.network.aggregation.staleness_exponent
            weight = np.float32(staleness_weight(staleness, exponent))
            update = update.map(lambda name, vector: weight * vector)
        if factor == 1.0:
            return update
        return update.map(lambda n, v: np.float32(factor) * v, lambda n, v: v)

    def _decoded(self, message: wire.Message, settings: Settings) -> Update:
        sender, coding = message.institution, self._plan.coding
        decoded: Blocks = {}
        for name, payload in message.blocks.items():
            size = message.sizes[name]
            try:
                decoded[name] = coding.decode(payload, name, size, message.round, sender, settings)
            except ProtocolError as error:
                raise ProtocolError(f"its block {name} can't be decoded: {error}") from None
        update, terms = Update.from_wire(decoded), self._plan.privacy
        if terms is not None and terms.config.mode == "client" and update:
            # A lossy codec may have lengthened it; this server is trusted to look, and clips.
            return Update(clipped(update.weights, terms.config.clip_norm))
        return update

    def aggregate(self, total: Total, round: int, tracked: Update) -> tuple[Aggregate, Update]:
        """Return the block-wise means, and under EF21 the sum of all that was received by now.

        Args:
            total: The sums.
            round: From 1.
            tracked: Under EF21, the sum of all that was received before.
        """
        plan, sums, survivors = self._plan, total.sums, dict(total.survivors)
        if plan.privacy is not None and plan.privacy.config.mode == "client":
            # A sample may be empty; the noise is released all the same.
            nothing = {n: np.zeros(size, np.float32) for n, size in self._sizes.items()}
            sums = Update(nothing | sums.weights)
            survivors = dict.fromkeys(sums.weights, ()) | survivors
        # Under EF21 the sum also holds what others sent in earlier rounds.
        standing = survivors
        if plan.coding.feedback == "ef21":
            before = tracked
            sums = Update(
                _over(before.weights, sums.weights), _over(before.controls, sums.controls)
            )
            tracked = Update(before.weights | sums.weights, before.controls | sums.controls)
            standing = {name: plan.owners[name] for name in sums.weights}
        mean = plan.transforms.means(sums, standing, round)
        weights = mean.weights
        if plan.weighs_by_loss:
            weights = {
                n: self._corrected(n, v, survivors[n], total.factors) for n, v in weights.items()
            }
        means = Aggregate(
            mean=weights,
            steps={name: self._mean_steps(name, survivors[name], total) for name in weights},
            participation={n: len(survivors[n]) / len(plan.owners[n]) for n in weights},
            controls=mean.controls,
        )
        return means, tracked

    def _corrected(
        self, block: str, mean: Vector, owners: tuple[str, ...], factors: Mapping[str, float]
    ) -> Vector:
        """Return the mean by fractions and factors, from that by fractions over weighed updates."""
        fractions = {name: self._plan.fractions[block][name] for name in owners}
        return np.float32(correction(fractions, factors)) * mean

    def _mean_steps(self, block: str, owners: tuple[str, ...], total: Total) -> float:
        fractions = self._plan.fractions[block]
        weights = {name: fractions[name] * total.factors[name] for name in owners}
        if not sum(weights.values()):
            return 0.0
        return sum(weights[name] * total.steps[name] for name in owners) / sum(weights.values())


def _over(before: Blocks, change: Blocks) -> Blocks:
    """Return what was there before with a change added, block by block."""
    return {name: before.get(name, np.float32(0)) + vector for name, vector in change.items()}
