"""From an institution's clipped sum to the integers that are masked, and from their sum back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fedfuse_ray.blocks import Blocks
from fedfuse_ray.compression.rotation import rotate, unrotate
from fedfuse_ray.federation.modes.grid import Grid
from fedfuse_ray.federation.plan.noise_shape import COUNT
from fedfuse_ray.privacy.accounting.adaptive_budget import Signal
from fedfuse_ray.privacy.mechanisms.exact import rounded_normal
from fedfuse_ray.privacy.mechanisms.integers import INTEGER_NOISE
from fedfuse_ray.privacy.randomness import Randomness, digest_of
from fedfuse_ray.privacy.secure_aggregation import to_modular

Words = npt.NDArray[np.unsignedinteger[Any]]
Integers = npt.NDArray[np.int64]
Owners = Mapping[str, tuple[str, ...]]


def noisy_words(sums: Blocks, institution: str, grid: Grid, draws: Randomness) -> dict[str, Words]:
    """Return an institution's clipped sums plus its share of the noise, as modular integers.

    Args:
        sums: Block name to the clipped sum of what stands for it, float32 [k].
        institution: Names the noise's stream.
        grid: The round's grid.
        draws: The run's randomness, given the incoming weights.

    Formal guarantees: the survivors' shares of a block add up to the standard deviation of its
    group times the sensitivity (on the fine grid after rounding), or more.
    """
    words = {}
    message = digest_of(sums)
    for name, vector in sums.items():
        share, units = grid.share_std(name), grid.units(name)
        # The same sum under other noise would be another release.
        scaled = message + repr((share, units)).encode()
        generator = draws.stream("noise share", institution, grid.round, name, message=scaled)
        if grid.is_coarse(name):
            rotated = rotate(vector, grid.rotation(name, grid.round)).astype(np.float64)
            integers = rounded_normal(rotated * units, units * share, generator)
        else:
            draw = INTEGER_NOISE[grid.terms.config.mechanism]
            integers = np.rint(vector.astype(np.float64) * units).astype(np.int64)
            integers += draw(vector.size, units * share, generator)
        words[name] = to_modular(integers, grid.bits(name))
    return words


def gradient_sums(sums: Mapping[str, Integers], grid: Grid) -> Blocks:
    """Return the noisy sums of gradients (of their sketches, where there are some), float32 [k].

    Args:
        sums: Block name to the sum of integers, [k].
        grid: The round's grid.
    """
    real: Blocks = {}
    for name, total in sums.items():
        if name == COUNT:
            continue
        real[name] = (total / grid.units(name)).astype(np.float32)
        if grid.is_coarse(name):
            real[name] = unrotate(real[name], grid.rotation(name, grid.round))
    return real


def mean_gradients(
    sums: Mapping[str, Integers], owners: Owners, grid: Grid, sizes: Mapping[str, int]
) -> Blocks:
    """Return each revealed block's sum over its expected batch, float32 [size].

    The expected batch comes from public sizes, never from the records that took part.

    Args:
        sums: Block name to the sum of integers, [k].
        owners: Block name to those whose integers are in it.
        grid: The round's grid.
        sizes: Number of parameters of each block.
    """
    means: Blocks = {}
    for name, total in gradient_sums(sums, grid).items():
        mean = total / np.float32(grid.expected_batch(owners[name]))
        lifts = grid.coding.sketches
        means[name] = grid.coding.lift(mean, name, sizes[name], grid.round) if lifts else mean
    return means


def released_signal(sums: Mapping[str, Integers], owners: Owners, grid: Grid) -> Signal:
    """Estimate the squared norm of the mean gradient over C^2, from what was released.

    The squared norm of the noisy means less what the known noise adds to it on average, and what
    rounding does on the coarse grid. Where there is nothing but noise it may be below 0.

    Args:
        sums: Block name to the sum of integers, [k].
        owners: Block name to those whose integers are in it.
        grid: The round's grid.
    """
    clip = math.hypot(*grid.terms.clip_norms.values())
    energies, variances = [], []
    for name, total in sums.items():
        if name == COUNT:
            continue
        units, count = grid.units(name), len(owners[name])
        # A grid step is 1 / units, so rounding adds a twelfth of its square for each owner.
        noise = count * (grid.share_std(name) ** 2 + 1.0 / (12.0 * units**2))
        norm = float(np.square(total / units).sum())
        scale = (clip * grid.expected_batch(owners[name])) ** 2
        energies.append((norm - total.size * noise) / scale)
        # Of a sum of squares of Gaussians.
        variances.append(2.0 * total.size * (noise / scale) ** 2)
    return Signal(math.fsum(energies), math.sqrt(math.fsum(variances)))


def unclipped_count(sums: Mapping[str, Integers], grid: Grid) -> float:
    """Return the noisy, centred count of unclipped records."""
    return float(sums[COUNT][0]) / grid.units(COUNT)
