"""The grid on which a secure sum's integers lie in one round: public, and the same for everybody.

Two grids:

- *Fine*: codec `fp32`, and the mechanisms with a proof for integers. The clipped sum is rounded
  first, on a grid so fine that rounding raises the sensitivity by 1%, and integer noise is added.
- *Coarse*: `modint`, `subspace` and `countsketch` with the Gaussian mechanism. The block is rotated
  at random, so that no coordinate stands out; the institution's share of the noise is added; and
  the noisy vector is rounded to a grid of about 0.6 to 1 standard deviation of that share: as
  coarse as `rounding_step` and the proof in docs/proofs.md allow.

The sum of what was rounded apart has the law of a rounded sum, up to a factor near 1. The grid
keeps that factor within what the ledger is charged for it (`privacy/mechanisms/rounding.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from fedfuse_ray import rng
from fedfuse_ray.federation.messages.coding import Coding
from fedfuse_ray.federation.messages.released import NOTHING_RELEASED, Released
from fedfuse_ray.federation.plan.noise_shape import COUNT
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.plan.terms import COUNT_UNITS, PrivacyTerms
from fedfuse_ray.privacy.mechanisms.clipping import JOINT
from fedfuse_ray.privacy.mechanisms.gaussian import share_std
from fedfuse_ray.privacy.mechanisms.rounding import coarsest_step

WIDEST_MODULUS = 32

Rotation = Callable[[str, int], np.random.Generator]


@dataclass(frozen=True)
class Grid:
    """One round's grid.

    Attributes:
        terms: The run's privacy terms.
        coding: How blocks are encoded.
        sizes: Public number of the units that are protected, by institution: of training specimens,
            or of their patients.
        round: From 1.
        released: The round's terms that change.
        rotation: The stream, by block and round, of the rotation that all its owners share.
    """

    terms: PrivacyTerms
    coding: Coding
    sizes: dict[str, int]
    round: int
    released: Released
    rotation: Rotation

    @property
    def records(self) -> int:
        """The public number of all records that a sum may hold; of patients, where each is one."""
        return sum(self.sizes.values())

    def is_coarse(self, block: str) -> bool:
        """Whether a block's integers lie on the coarse grid; the count of records never does."""
        gaussian = self.terms.config.mechanism == "gaussian"
        return gaussian and block != COUNT and self.coding.config.codec != "fp32"

    def bits(self, block: str) -> int:
        """Return the width of the modulus in which a block, or `COUNT`, is summed."""
        terms, config = self.terms, self.coding.config
        if block == COUNT:
            return terms.count_bits(self.records)
        if config.codec == "fp32":
            terms.modulus_bits(self.records)  # refuses what 32 bits can't hold
            return WIDEST_MODULUS
        if (chosen := self.released.settings.get(block)) is not None:
            return chosen.bits
        if config.bits is not None:
            return config.bits
        if not self.is_coarse(block):
            return terms.modulus_bits(self.records)
        sigma = min(r.noise_multiplier for r in terms.releases.values()) * min(terms.factors)
        sigma *= self.released.factor
        step = self.step(block)
        signal = self.records * math.sqrt(terms.shares(block)) / (step * sigma)
        noise = 12.0 * math.sqrt(len(terms.owners[block])) / step
        return min(math.ceil(math.log2(2.0 * (signal + noise) + 1.0)), WIDEST_MODULUS)

    def std(self, block: str) -> float:
        """Return the standard deviation of a block's noise on the sum, in units of gradient.

        On the fine grid it is widened by what rounding adds to the sensitivity of its group; the
        count of records is not rounded.
        """
        terms, clip_norm = self.terms, self.released.clip_norm
        sigma = terms.common_sigma(self.round) * self.released.factor
        if clip_norm is not None:
            gradient, count = terms.adaptive_stds(sigma)
            if block == COUNT:
                return count
            stds = {JOINT: gradient * clip_norm}
        else:
            stds = terms.noise_stds(sigma)
        group = terms.groups((block,))[block]
        if self.is_coarse(block):
            return stds[group]
        scale = terms.scales[group]
        if clip_norm is not None:
            scale = replace(scale, clip_norm=clip_norm)
        return stds[group] * scale.l2 / (scale.scale * scale.clip_norm)

    def share_std(self, block: str) -> float:
        """Return the standard deviation of one owner's share of a block's noise."""
        return share_std(self.std(block), self.terms.shares(block))

    def units(self, block: str) -> float:
        """Return the integer units in one unit of gradient."""
        if block == COUNT:
            return float(COUNT_UNITS)
        if not self.is_coarse(block):
            return self.terms.scales[self.terms.groups((block,))[block]].scale
        return 1.0 / (self.step(block) * self.share_std(block))

    def step(self, block: str) -> float:
        """Return a step of a block's coarse grid, in standard deviations of one owner's share."""
        proved = coarsest_step(self.terms.shares(block), self.terms.coordinate_ripple)
        return min(self.coding.config.rounding_step, proved)

    def expected_batch(self, owners: Iterable[str]) -> float:
        """Return how many units the owners are expected to sample, from public sizes."""
        releases = self.terms.releases
        return math.fsum(releases[who].sampling_rate * self.sizes[who] for who in owners)


def grid_of(plan: Plan, round: int, released: Released = NOTHING_RELEASED) -> Grid:
    """Return a round's grid.

    Args:
        plan: The federation's plan, with privacy terms.
        round: From 1.
        released: The round's terms that change; as the server broadcasts them.
    """
    seed = plan.experiment.seed
    return Grid(
        terms=plan.terms,
        coding=plan.coding,
        sizes={p.name: p.units(plan.terms.config) for p in plan.participants},
        round=round,
        released=released,
        rotation=lambda block, round: rng.generator(seed, "secure rotation", block, round),
    )
