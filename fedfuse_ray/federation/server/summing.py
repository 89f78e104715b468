"""From updates that were accepted to block-wise means: decode, weigh, add, undo the chain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedfuse_ray.blocks import Blocks, Vector
from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.federation.messages import wire
from fedfuse_ray.federation.messages.private_transforms import ClipUpdate
from fedfuse_ray.federation.messages.transforms import build_chain, undo_chain
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.server.strategies import CONTROL, Aggregate
from fedfuse_ray.federation.server.weighting import correction, loss_factors
from fedfuse_ray.network import staleness_weight

_TRACKED = "tracked/"
"""Sum of what EF21's senders have got across so far."""


@dataclass
class Total:
    """Block-wise sums while they are taken, and who is in them."""

    sums: Blocks = field(default_factory=dict)
    survivors: dict[str, tuple[str, ...]] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    factors: dict[str, float] = field(default_factory=dict)
    accepted: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)

    def add(self, message: wire.Message, decoded: Blocks, factor: float) -> None:
        """Add one update, which is weighed by a factor already."""
        who = message.institution
        self.factors[who] = factor
        self.accepted.append(who)
        self.steps[who] = message.steps
        for name, vector in decoded.items():
            self.sums[name] = self.sums[name] + vector if name in self.sums else vector
            self.survivors[name] = (*self.survivors.get(name, ()), who)


class Summing:
    """Takes a round's sums, and the means from them.

    Args:
        plan: The federation's plan.
        sizes: Each block's length.
    """

    def __init__(self, plan: Plan, sizes: Mapping[str, int]) -> None:
        self._plan, self._sizes = plan, sizes
        self._chain = build_chain(plan)

    def add_up(self, messages: Sequence[wire.Message], round: int, state: Blocks) -> Total:
        """Decode one update after the other and add them up; those that can't be are refused."""
        total = Total()
        factors = self._factors(messages)
        for message in messages:
            factor = factors.get(message.institution, 1.0)
            try:
                decoded = self._decoded(message, round, state)
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

    def _weighed(self, decoded: Blocks, staleness: int, factor: float) -> Blocks:
        """Weigh an update by its age, and by its sender's loss; control variates are not."""
        if staleness:
            exponent = self._plan.experiment.network.aggregation.staleness_exponent
            weight = np.float32(staleness_weight(staleness, exponent))
            decoded = {name: weight * vector for name, vector in decoded.items()}
        if factor == 1.0:
            return decoded
        return {
            name: vector if name.startswith(CONTROL) else np.float32(factor) * vector
            for name, vector in decoded.items()
        }

    def _decoded(self, message: wire.Message, round: int, state: Blocks) -> Blocks:
        who, coding = message.institution, self._plan.coding
        decoded: Blocks = {}
        for name, payload in message.blocks.items():
            size = message.sizes[name]
            try:
                decoded[name] = coding.decode(payload, name, size, message.round, who, state)
            except ProtocolError as error:
                raise ProtocolError(f"its block {name} can't be decoded: {error}") from None
        terms = self._plan.privacy
        if terms is not None and terms.config.mode == "client" and decoded:
            # What was lost on the way may have lengthened it; this server may look, and clips.
            decoded = ClipUpdate(terms.config.clip_norm).apply(decoded, who, round)
        return decoded

    def aggregate(self, total: Total, round: int, state: Blocks) -> tuple[Aggregate, Blocks]:
        """Return the block-wise means, and what the server's state gains by them.

        Args:
            total: The sums.
            round: From 1.
            state: The server's state.
        """
        gained: Blocks = {}
        sums, survivors = dict(total.sums), dict(total.survivors)
        if self._plan.privacy is not None and self._plan.privacy.config.mode == "client":
            # A sample may be empty; the noise is released all the same.
            sums = {n: np.zeros(size, np.float32) for n, size in self._sizes.items()} | sums
            survivors = dict.fromkeys(sums, ()) | survivors
        # Whoever sends nothing under EF21 is still there with what it sent before.
        standing = survivors
        if self._plan.coding.feedback == "ef21":
            sums = {n: state.get(_TRACKED + n, np.float32(0)) + v for n, v in sums.items()}
            gained = {_TRACKED + name: vector for name, vector in sums.items()}
            standing = {name: self._plan.owners[name.removeprefix(CONTROL)] for name in sums}
        mean = undo_chain(self._chain, sums, standing, round)
        if self._plan.weighs_by_loss:
            mean = {n: self._corrected(n, v, survivors[n], total.factors) for n, v in mean.items()}
        means = Aggregate(
            mean=mean,
            steps={name: self._mean_steps(name, survivors[name], total) for name in mean},
            participation={
                name: len(survivors[name]) / len(self._plan.owners[name.removeprefix(CONTROL)])
                for name in mean
            },
        )
        return means, gained

    def _corrected(
        self, block: str, mean: Vector, who: tuple[str, ...], factors: Mapping[str, float]
    ) -> Vector:
        """Return the mean by fractions and factors, from that by fractions over weighed updates."""
        if block.startswith(CONTROL):
            return mean
        fractions = {name: self._plan.fractions[block][name] for name in who}
        return np.float32(correction(fractions, factors)) * mean

    def _mean_steps(self, block: str, who: tuple[str, ...], total: Total) -> float:
        fractions = self._plan.fractions[block.removeprefix(CONTROL)]
        weights = {name: fractions[name] * total.factors[name] for name in who}
        if not sum(weights.values()):
            return 0.0
        return sum(weights[name] * total.steps[name] for name in who) / sum(weights.values())
