"""The chain of update transforms: applied in order at an institution, undone in reverse at the sum.

The server never undoes a transform on one institution's update, only on the block-wise sum, so the
same chain serves with and without secure aggregation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fedfuse_ray.blocks import Blocks
from fedfuse_ray.federation.messages.private_transforms import (
    ClipUpdate,
    ExpectedMean,
    NoiseBroadcast,
    NoiseSum,
    NoiseUpdate,
    Survivors,
)
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.server.strategies import CONTROL


class UpdateTransform(Protocol):
    """One link of the chain."""

    def apply(self, blocks: Blocks, institution: str, round: int) -> Blocks:
        """Transform one institution's update before it is encoded."""
        ...

    def undo(self, sums: Blocks, survivors: Survivors, round: int) -> Blocks:
        """Transform the decoded block-wise sums at the server."""
        ...


@dataclass(frozen=True)
class Weigh:
    """Scale by the public weights, so that the plain sum is the weighted mean over the owners."""

    fractions: Mapping[str, Mapping[str, float]]

    def apply(self, blocks: Blocks, institution: str, round: int) -> Blocks:
        """Multiply each block by the institution's fraction of it."""
        return {
            name: np.float32(self._fraction(name, institution)) * vector
            for name, vector in blocks.items()
        }

    def undo(self, sums: Blocks, survivors: Survivors, round: int) -> Blocks:
        """Divide by what the survivors' fractions sum to: one when nobody dropped out."""
        return {
            name: total / np.float32(sum(self._fraction(name, who) for who in survivors[name]))
            for name, total in sums.items()
        }

    def _fraction(self, block: str, institution: str) -> float:
        if block.startswith(CONTROL):
            return 1.0  # SCAFFOLD averages control variates uniformly (Alg. 1, line 17).
        return self.fractions[block][institution]


def build_chain(plan: Plan) -> tuple[UpdateTransform, ...]:
    """Return the transforms of an experiment, in the institution's order."""
    terms, seed = plan.privacy, plan.experiment.seed
    if terms is not None and terms.config.mode == "client":
        return (ClipUpdate(terms.config.clip_norm), ExpectedMean(terms), NoiseSum(terms, seed))
    if terms is not None and terms.config.mode == "local-update":
        chain = (ClipUpdate(terms.config.clip_norm), NoiseUpdate(terms, seed), ExpectedMean(terms))
        few = terms.config.uplink_exposures is not None
        return (*chain, NoiseBroadcast(terms, seed)) if few else chain
    return (Weigh(plan.fractions),)


def apply_chain(
    chain: tuple[UpdateTransform, ...], blocks: Blocks, institution: str, round: int
) -> Blocks:
    """Run an update through the chain; one without blocks stays so."""
    if not blocks:
        return blocks
    for transform in chain:
        blocks = transform.apply(blocks, institution, round)
    return blocks


def undo_chain(
    chain: tuple[UpdateTransform, ...], sums: Blocks, survivors: Survivors, round: int
) -> Blocks:
    """Run the sums back through the chain."""
    for transform in reversed(chain):
        sums = transform.undo(sums, survivors, round)
    return sums
