"""How much noise each institution adds, so that the secure sum carries what the guarantee needs.

A block b with K_b owners, of which at most t_b may drop out or collude, gets from every owner
Gaussian noise of variance (sigma C)^2 / (K_b - t_b). Whichever K_b - t_b owners remain, their
shares add up to at least (sigma C)^2. A block with a single owner carries the full noise.

Formal guarantees: with every record clipped to an L2 norm of C over *all* blocks jointly, the sums
of all blocks together are one Gaussian mechanism with multiplier sigma, since every coordinate
carries variance (sigma C)^2 or more. It holds against the server together with t_b owners per
block. Noise is drawn in floating point; the low-order bits of such samples are not covered
(Mironov, 2012, doi 10.1145/2382196.2382264), the integer mechanisms do not have this gap.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from fedfuse_ray.errors import InputError


def effective_tolerance(owners: int, tolerated: int) -> int:
    """Return t_b: `tolerated`, but always fewer than the block's owners.

    Raises:
        InputError: A block that nobody owns, or a negative tolerance.

    >>> effective_tolerance(owners=3, tolerated=5)
    2
    """
    if owners < 1:
        raise InputError("owners", owners, "a block has at least one owner")
    if tolerated < 0:
        raise InputError("privacy.tolerated_dropouts", tolerated, "use 0 or more")
    return min(tolerated, owners - 1)


def share_std(std: float, shares: int) -> float:
    """Return the standard deviation of one owner's noise share.

    Args:
        std: Of the noise that the sum has to carry.
        shares: K_b - t_b, of how many shares it is made.

    >>> share_std(3.0, shares=4)
    1.5
    """
    return std / math.sqrt(shares)


def realised_noise_multiplier(
    noise_multiplier: float, owners: Mapping[str, int], tolerated: int, missing: Mapping[str, int]
) -> float:
    """Return the multiplier that a round really had, for the ledger.

    With at most t_b owners missing or colluding it is at least `noise_multiplier`, and exactly
    that is returned: charging less would rely on owners that may collude. With more missing, the
    block with the least noise decides.

    Args:
        noise_multiplier: The planned sigma.
        owners: K_b by block.
        tolerated: t.
        missing: Owners whose share is absent from the sum, by block.

    Raises:
        InputError: All shares of a block are missing: its sum is bare and must not be released.
    """
    worst = 1.0
    for block, count in owners.items():
        needed = count - effective_tolerance(count, tolerated)
        present = count - missing.get(block, 0)
        if present < 1:
            raise InputError(f"noise of {block}", present, "no share is left; drop the block")
        worst = min(worst, present / needed)
    return noise_multiplier * math.sqrt(worst)


def joint_noise_multiplier(groups: Iterable[tuple[float, float]]) -> float:
    """Return sigma of groups released together: 1/sigma^2 = sum C_m^2 / s_m^2.

    Args:
        groups: Pairs (clipping norm C_m, noise standard deviation s_m).
    """
    inverse = math.fsum((clip / scale) ** 2 for clip, scale in groups)
    if not 0.0 < inverse < math.inf:
        raise InputError("privacy.groups", inverse, "give at least one group, noise above 0")
    return 1.0 / math.sqrt(inverse)


def group_noise_stds(
    noise_multiplier: float, groups: Mapping[str, tuple[float, float | None]]
) -> dict[str, float]:
    """Scale the groups' relative noise so that together they give `noise_multiplier`.

    Args:
        noise_multiplier: The joint sigma to reach.
        groups: (clip norm C_m, relative noise scale or null for C_m) by group.

    Returns:
        s_m by group, the standard deviation on the sum.
    """
    relative = {name: (clip, scale or clip) for name, (clip, scale) in groups.items()}
    factor = noise_multiplier / joint_noise_multiplier(relative.values())
    return {name: scale * factor for name, (_, scale) in relative.items()}


def gaussian_noise(
    size: int, std: float, generator: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Return one owner's Gaussian share, float32 [size]."""
    noise = generator.standard_normal(size, dtype=np.float32)
    return np.multiply(noise, np.float32(std), out=noise)
