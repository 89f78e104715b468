"""Update transforms of the modes that protect institutions: clip whole updates, and add noise.

- `client`: the server samples institutions and adds the noise to the sum (Geyer et al., 2017, arXiv
  1712.07557; McMahan et al., 2018, arXiv 1710.06963). The server is trusted.
- `local-update`: each institution adds the noise itself (Wei et al., 2020, NbAFL, arXiv
  1911.00222). Nobody is trusted; but where few uploads are assumed to be seen, the server is, and
  adds to the sum what the broadcasts lack.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedfuse_ray import rng
from fedfuse_ray.blocks import Blocks, Vector
from fedfuse_ray.federation.privacy_terms import PrivacyTerms
from fedfuse_ray.privacy.clipping import clip_factors
from fedfuse_ray.privacy.mechanisms import effective_tolerance, gaussian_noise

Survivors = Mapping[str, tuple[str, ...]]
"""Block name to the institutions whose update of it is in the sum."""


@dataclass(frozen=True)
class ClipUpdate:
    """Scale an update so that its L2 norm over all blocks is at most C; NaN becomes zero."""

    clip_norm: float

    def apply(self, blocks: Blocks, institution: str, round: int) -> Blocks:
        """Clip."""
        squares = [float(np.square(v, dtype=np.float64).sum()) for v in blocks.values()]
        norm = np.array([math.sqrt(math.fsum(squares))])
        factor = float(clip_factors(norm, self.clip_norm)[0])
        if factor == 0.0:
            return {name: np.zeros_like(vector) for name, vector in blocks.items()}
        return {name: np.float32(factor) * vector for name, vector in blocks.items()}

    def undo(self, sums: Blocks, survivors: Survivors, round: int) -> Blocks:
        """Leave the sums as they are."""
        return sums


@dataclass(frozen=True)
class NoiseUpdate:
    """Add an institution's own noise to its clipped update."""

    terms: PrivacyTerms
    seed: int

    def apply(self, blocks: Blocks, institution: str, round: int) -> Blocks:
        """Add noise."""
        std = self.terms.sigma(institution, round) * self.terms.config.clip_norm
        return _add_noise(blocks, std, self.seed, institution, round)

    def undo(self, sums: Blocks, survivors: Survivors, round: int) -> Blocks:
        """Leave the sums as they are."""
        return sums


@dataclass(frozen=True)
class NoiseBroadcast:
    """Add to the sums what their noise lacks, where all broadcasts are seen but few uploads.

    Formal guarantees: whoever is in a block's sum, it carries Gaussian noise of a variance of at
    least (broadcast_sigma C)^2 that at most t of the other owners together don't know. Nothing is
    added where the owners' own noise suffices, as it always does if all uploads may be seen.
    """

    terms: PrivacyTerms
    seed: int

    def apply(self, blocks: Blocks, institution: str, round: int) -> Blocks:
        """Leave the update as it is."""
        return blocks

    def undo(self, sums: Blocks, survivors: Survivors, round: int) -> Blocks:
        """Add noise."""
        return {
            name: self._noised(name, total, len(survivors[name]), round)
            for name, total in sums.items()
        }

    def _noised(self, name: str, total: Vector, owners: int, round: int) -> Vector:
        config = self.terms.config
        sigma = self.terms.sigma(next(iter(self.terms.releases)), round)
        unknown = owners - effective_tolerance(owners, config.tolerated_dropouts)
        lacking = self.terms.broadcast_sigma(sigma) ** 2 - unknown * sigma**2
        if lacking <= 0.0:
            return total
        stream = rng.generator(self.seed, "downlink noise", round, name)
        return total + gaussian_noise(total.size, config.clip_norm * math.sqrt(lacking), stream)


@dataclass(frozen=True)
class ExpectedMean:
    """Divide sums by the expected number of owners that take part, which is public."""

    terms: PrivacyTerms

    def apply(self, blocks: Blocks, institution: str, round: int) -> Blocks:
        """Leave the update as it is."""
        return blocks

    def undo(self, sums: Blocks, survivors: Survivors, round: int) -> Blocks:
        """Divide."""
        rate = self.terms.config.sampling_rate
        return {
            name: total / np.float32(rate * len(self.terms.owners[name]))
            for name, total in sums.items()
        }


@dataclass(frozen=True)
class NoiseSum:
    """Add the server's noise to the sums."""

    terms: PrivacyTerms
    seed: int

    def apply(self, blocks: Blocks, institution: str, round: int) -> Blocks:
        """Leave the update as it is."""
        return blocks

    def undo(self, sums: Blocks, survivors: Survivors, round: int) -> Blocks:
        """Add noise."""
        some = next(iter(self.terms.releases))
        std = self.terms.sigma(some, round) * self.terms.config.clip_norm
        return _add_noise(sums, std, self.seed, "server", round)


def takes_part(terms: PrivacyTerms, seed: int, institution: str, round: int) -> bool:
    """Whether the server's Poisson sample of a round holds an institution."""
    if terms.config.mode != "client":
        return True
    rate = terms.config.sampling_rate
    return rate >= 1 or rng.generator(seed, "institutions", institution, round).random() < rate


def _add_noise(blocks: Blocks, std: float, seed: int, who: str, round: int) -> Blocks:
    return {
        name: vector
        + gaussian_noise(vector.size, std, rng.generator(seed, "update noise", who, round, name))
        for name, vector in blocks.items()
    }
