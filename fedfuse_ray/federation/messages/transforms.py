"""Update transforms: what an institution does to its update, and what the server does to the sum.

The server never touches one institution's update, only the block-wise sum, so the same transforms
serve with and without secure aggregation. Those that protect institutions:

- `client`: the server samples institutions and adds the noise to the sum (Geyer et al., 2017, arXiv
  1712.07557; McMahan et al., 2018, arXiv 1710.06963). The server is trusted.
- `local-update`: each institution adds the noise itself (Wei et al., 2020, NbAFL, arXiv
  1911.00222). Nobody is trusted; but where few uploads are assumed to be seen, the server is, and
  adds to the sum what the broadcasts lack.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fedfuse_ray.blocks import Blocks, Vector
from fedfuse_ray.federation.messages.updates import Update
from fedfuse_ray.privacy.mechanisms.clipping import clip_factors
from fedfuse_ray.privacy.mechanisms.gaussian import gaussian_noise
from fedfuse_ray.privacy.randomness import Randomness, digest_of

Survivors = Mapping[str, tuple[str, ...]]
"""Block name to the institutions whose update of it is in the sum."""

Fractions = Mapping[str, Mapping[str, float]]
"""Block name to its owners' public weights."""

OnUpdate = Callable[[Update, str, int], Update]
"""From an institution's update, its name and the round to what it sends."""

OnSums = Callable[[Update, Survivors, int], Update]
"""From block-wise sums, who is in them and the round to means."""


@dataclass(frozen=True)
class Transforms:
    """The transforms of an experiment.

    Attributes:
        at_institution: Applied in order, before the update is encoded.
        at_server: Applied in order to the decoded sums.
    """

    at_institution: tuple[OnUpdate, ...] = ()
    at_server: tuple[OnSums, ...] = ()

    def sent(self, update: Update, institution: str, round: int) -> Update:
        """Return what an institution sends of its update; one without blocks stays so."""
        for transform in self.at_institution if update else ():
            update = transform(update, institution, round)
        return update

    def means(self, sums: Update, survivors: Survivors, round: int) -> Update:
        """Return the means that the server makes of the sums."""
        for transform in self.at_server:
            sums = transform(sums, survivors, round)
        return sums


def weigh(fractions: Fractions) -> OnUpdate:
    """Scale by the public weights, so that the plain sum is the weighted mean over the owners.

    SCAFFOLD averages control variates uniformly (Alg. 1, line 17): they stay as they are.
    """

    def apply(update: Update, institution: str, round: int) -> Update:
        return update.map(lambda n, v: np.float32(fractions[n][institution]) * v, lambda n, v: v)

    return apply


def divide_by_weights(fractions: Fractions) -> OnSums:
    """Divide by what the survivors' fractions sum to: one when nobody dropped out."""

    def apply(sums: Update, survivors: Survivors, round: int) -> Update:
        return sums.map(
            lambda n, v: v / np.float32(sum(fractions[n][who] for who in survivors[n])),
            lambda n, v: v / np.float32(len(survivors[n])),
        )

    return apply


def clip(clip_norm: float) -> OnUpdate:
    """Scale an update so that its L2 norm over all blocks is at most C; NaN becomes zero."""

    def apply(update: Update, institution: str, round: int) -> Update:
        return Update(clipped(update.weights, clip_norm))

    return apply


def clipped(blocks: Blocks, clip_norm: float) -> Blocks:
    """Return blocks with an L2 norm over all of them of at most C; NaN becomes zero."""
    squares = [float(np.square(v, dtype=np.float64).sum()) for v in blocks.values()]
    norm = np.array([math.sqrt(math.fsum(squares))])
    factor = float(clip_factors(norm, clip_norm)[0])
    if factor == 0.0:
        return {name: np.zeros_like(vector) for name, vector in blocks.items()}
    return {name: np.float32(factor) * vector for name, vector in blocks.items()}


def add_own_noise(std: Callable[[str, int], float], draws: Randomness) -> OnUpdate:
    """Add an institution's own noise, of a standard deviation by its name and the round."""

    def apply(update: Update, institution: str, round: int) -> Update:
        return _noised(update, std(institution, round), draws, institution, round)

    return apply


def add_server_noise(std: Callable[[int], float], draws: Randomness) -> OnSums:
    """Add the server's noise, of a standard deviation by the round."""

    def apply(sums: Update, survivors: Survivors, round: int) -> Update:
        return _noised(sums, std(round), draws, "server", round)

    return apply


def add_lacking_noise(std: Callable[[int, int], float], draws: Randomness) -> OnSums:
    """Add to the sums what their noise lacks, where all broadcasts are seen but few uploads.

    Args:
        std: What lacks, by the number of a block's survivors and the round; 0 where nothing does.
        draws: The run's randomness.
    """

    def apply(sums: Update, survivors: Survivors, round: int) -> Update:
        message = digest_of(sums.weights)

        def noised(name: str, total: Vector) -> Vector:
            lacking = std(len(survivors[name]), round)
            if not lacking:
                return total
            stream = draws.stream("downlink noise", round, name, message=message)
            return total + gaussian_noise(total.size, lacking, stream)

        return sums.map(noised)

    return apply


def divide_by_expected(expected: Callable[[str], float]) -> OnSums:
    """Divide each block by the expected number of owners that take part, which is public."""

    def apply(sums: Update, survivors: Survivors, round: int) -> Update:
        return sums.map(lambda n, v: v / np.float32(expected(n)))

    return apply


def _noised(update: Update, std: float, draws: Randomness, sender: str, round: int) -> Update:
    """Return an update plus noise that nothing but the same release has."""
    message = digest_of(update.weights)

    def noised(name: str, vector: Vector) -> Vector:
        stream = draws.stream("update noise", sender, round, name, message=message)
        return vector + gaussian_noise(vector.size, std, stream)

    return update.map(noised)
