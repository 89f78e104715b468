"""From an institution's clipped sum to the integers that are masked, and from their sum back.

Two grids:

- *Fine*: codec `fp32`, and the mechanisms with a proof for integers. The clipped sum is rounded
  first, on a grid so fine that rounding raises the sensitivity by 1%, and integer noise is added.
- *Coarse*: `modint`, `subspace` and `countsketch` with the Gaussian mechanism. The block is rotated
  at random, so that no coordinate stands out; the institution's share of the noise is added; and
  the noisy vector is rounded to a grid of `rounding_step` standard deviations of that share.

Why coarse rounding keeps the guarantee: let institution j hold the differing record, n its noise
share, and R the sum of all the others' integers. Since rounding commutes with adding an integer,
round(x + n) + R = round(x + n + R): the sum is computed from x + (n + R) alone, and n + R is noise
that does not depend on the record. R is as wide as the others' shares and their rounding; n smooths
R's lattice away up to a ripple of relative size 2 exp(-2 pi^2 s^2 (m - 1) / m) at a share of s
grid steps and m = K - t shares: 1e-4 for two shares at the largest step allowed, 3e-8 for fourteen.
The others' rounding errors are noise that is not accounted, and outweigh it. The guarantee
accounted is that of the Gaussian of the shares alone; tests/statistical/test_coarse_rounding.py
compares the two numerically.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fedfuse_ray import rng
from fedfuse_ray.blocks import Blocks, Vector
from fedfuse_ray.compression.rotation import rotate, unrotate
from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.federation.messages.coding import SETTING
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.plan.terms import COUNT, PrivacyTerms
from fedfuse_ray.privacy.accounting.adaptive_budget import Signal
from fedfuse_ray.privacy.mechanisms.gaussian import gaussian_noise
from fedfuse_ray.privacy.mechanisms.integers import INTEGER_NOISE
from fedfuse_ray.privacy.secure_aggregation import to_modular

CLIP_NORM = "clipping/norm"
"""Under adaptive clipping the server broadcasts the round's clipping norm as this vector, [1]."""

NOISE_FACTOR = "noise/factor"
"""Under an adaptive schedule the server broadcasts the factor on the round's noise so, [1]."""

RELEASED_TERMS = frozenset({CLIP_NORM, NOISE_FACTOR})
"""What every institution needs of a broadcast beside its blocks."""

WIDEST_MODULUS = 32

Words = npt.NDArray[np.unsignedinteger[Any]]
Integers = npt.NDArray[np.int64]


def terms_of(plan: Plan) -> PrivacyTerms:
    """Return the plan's privacy terms, which it must have."""
    if plan.privacy is None:
        raise ProtocolError("this federation has no privacy terms")
    return plan.privacy


def noise_factor(extra: Mapping[str, Vector]) -> float:
    """Return the factor on a round's noise that an adaptive schedule broadcasts, or 1."""
    return float(extra[NOISE_FACTOR][0]) if NOISE_FACTOR in extra else 1.0


def is_coarse(plan: Plan, block: str) -> bool:
    """Whether a block's integers lie on the coarse grid; the count of records never does."""
    gaussian = terms_of(plan).config.mechanism == "gaussian"
    return gaussian and block != COUNT and plan.coding.config.codec != "fp32"


def modulus_bits(plan: Plan, block: str, extra: Mapping[str, Vector]) -> int:
    """Return the width of the modulus in which a block is summed.

    Args:
        plan: The federation's plan.
        block: Its name, or `COUNT`.
        extra: The broadcast's vectors, or the server's state: the policy's choices.
    """
    terms, config = terms_of(plan), plan.coding.config
    records = sum(p.specimens for p in plan.participants)
    if block == COUNT:
        return terms.modulus_bits(records)
    if config.codec == "fp32":
        terms.modulus_bits(records)  # refuses what 32 bits can't hold
        return WIDEST_MODULUS
    if (chosen := extra.get(SETTING + block)) is not None:
        return round(float(chosen[0]))
    if config.bits is not None:
        return config.bits
    if not is_coarse(plan, block):
        return terms.modulus_bits(records)
    sigma = min(r.noise_multiplier for r in terms.releases.values()) * min(terms.factors)
    sigma *= noise_factor(extra)
    step = config.rounding_step
    signal = records * math.sqrt(terms.shares(block)) / (step * sigma)
    noise = 12.0 * math.sqrt(len(terms.owners[block])) / step
    return min(math.ceil(math.log2(2.0 * (signal + noise) + 1.0)), WIDEST_MODULUS)


def noisy_words(
    sums: Blocks, institution: str, round: int, plan: Plan, extra: Mapping[str, Vector]
) -> dict[str, Words]:
    """Return an institution's clipped sums plus its share of the noise, as modular integers.

    Args:
        sums: Block name to the clipped sum of what stands for it, float32 [k].
        institution: Names the noise's stream.
        round: From 1.
        plan: The federation's plan, with privacy terms.
        extra: The broadcast's vectors: the round's clipping norm, the policy's choices.

    Formal guarantees: the survivors' shares of a block add up to the standard deviation of its
    group times the sensitivity (on the fine grid after rounding), or more.
    """
    terms = terms_of(plan)
    words = {}
    for name, vector in sums.items():
        generator = rng.generator(plan.experiment.seed, "noise share", institution, round, name)
        share = _noise_std(plan, name, round, extra) / math.sqrt(terms.shares(name))
        units = _units(plan, name, round, extra)
        if is_coarse(plan, name):
            noisy = rotate(vector, _rotation(plan, name, round)).astype(np.float64)
            noisy += gaussian_noise(vector.size, share, generator)
            integers = np.rint(noisy * units).astype(np.int64)
        else:
            draw = INTEGER_NOISE[terms.config.mechanism]
            integers = np.rint(vector.astype(np.float64) * units).astype(np.int64)
            integers += draw(vector.size, units * share, generator)
        words[name] = to_modular(integers, modulus_bits(plan, name, extra))
    return words


def gradient_sums(
    sums: Mapping[str, Integers], plan: Plan, round: int, extra: Mapping[str, Vector]
) -> Blocks:
    """Return the noisy sums of gradients (of their sketches, where there are some), float32 [k].

    Args:
        sums: Block name to the sum of integers, [k].
        plan: The federation's plan.
        round: From 1.
        extra: The round's broadcast vectors.
    """
    real: Blocks = {}
    for name, total in sums.items():
        if name == COUNT:
            continue
        real[name] = (total / _units(plan, name, round, extra)).astype(np.float32)
        if is_coarse(plan, name):
            real[name] = unrotate(real[name], _rotation(plan, name, round))
    return real


def mean_gradients(
    sums: Mapping[str, Integers],
    owners: Mapping[str, tuple[str, ...]],
    plan: Plan,
    sizes: Mapping[str, int],
    round: int,
    extra: Mapping[str, Vector],
) -> Blocks:
    """Return each revealed block's sum over its expected batch, float32 [size].

    The expected batch comes from public sizes, never from the records that took part.

    Args:
        sums: Block name to the sum of integers, [k].
        owners: Block name to those whose integers are in it.
        plan: The federation's plan.
        sizes: Number of parameters of each block.
        round: From 1.
        extra: The round's broadcast vectors.
    """
    means: Blocks = {}
    for name, total in gradient_sums(sums, plan, round, extra).items():
        mean = total / np.float32(expected_batch(plan, owners[name]))
        lifts = plan.coding.sketches
        means[name] = plan.coding.lift(mean, name, sizes[name], round) if lifts else mean
    return means


def released_signal(
    sums: Mapping[str, Integers],
    owners: Mapping[str, tuple[str, ...]],
    plan: Plan,
    round: int,
    extra: Mapping[str, Vector],
) -> Signal:
    """Estimate the squared norm of the mean gradient over C^2, from what was released.

    The squared norm of the noisy means less what the known noise adds to it on average, and what
    rounding does on the coarse grid. Where there is nothing but noise it may be below 0.

    Args:
        sums: Block name to the sum of integers, [k].
        owners: Block name to those whose integers are in it.
        plan: The federation's plan.
        round: From 1.
        extra: The round's broadcast vectors.
    """
    clip = math.hypot(*terms_of(plan).clip_norms.values())
    energies, variances = [], []
    for name, total in sums.items():
        if name == COUNT:
            continue
        units, count = _units(plan, name, round, extra), len(owners[name])
        share = _noise_std(plan, name, round, extra) / math.sqrt(terms_of(plan).shares(name))
        # A grid step is 1 / units, so rounding adds a twelfth of its square for each owner.
        noise = count * (share**2 + 1.0 / (12.0 * units**2))
        norm = float(np.square(total / units).sum())
        scale = (clip * expected_batch(plan, owners[name])) ** 2
        energies.append((norm - total.size * noise) / scale)
        # Of a sum of squares of Gaussians.
        variances.append(2.0 * total.size * (noise / scale) ** 2)
    return Signal(math.fsum(energies), math.sqrt(math.fsum(variances)))


def unclipped_count(sums: Mapping[str, Integers], plan: Plan) -> float:
    """Return the noisy, centred count of unclipped records."""
    return float(sums[COUNT][0]) / terms_of(plan).scale.scale


def expected_batch(plan: Plan, owners: tuple[str, ...]) -> float:
    """Return how many records the owners are expected to sample, from public sizes."""
    releases = terms_of(plan).releases
    return math.fsum(releases[who].sampling_rate * plan.by_name[who].specimens for who in owners)


def _units(plan: Plan, block: str, round: int, extra: Mapping[str, Vector]) -> float:
    """Return the integer units in one unit of gradient."""
    terms = terms_of(plan)
    if not is_coarse(plan, block):
        return terms.scale.scale
    share = _noise_std(plan, block, round, extra) / math.sqrt(terms.shares(block))
    return 1.0 / (plan.coding.config.rounding_step * share)


def _noise_std(plan: Plan, block: str, round: int, extra: Mapping[str, Vector]) -> float:
    """Return the standard deviation of a block's noise on the sum, in units of gradient.

    On the fine grid it is widened by what rounding adds to the sensitivity.
    """
    terms = terms_of(plan)
    scale, sigma = terms.scale, terms.sigma(next(iter(terms.releases)), round)
    sigma *= noise_factor(extra)
    if CLIP_NORM in extra:
        gradient, count = terms.adaptive_stds(sigma)
        if block == COUNT:
            return count
        scale = dataclasses.replace(scale, clip_norm=float(extra[CLIP_NORM][0]))
        std = gradient * scale.clip_norm
    else:
        std = terms.noise_stds(sigma)[terms.groups((block,))[block]]
    return std if is_coarse(plan, block) else std * scale.l2 / (scale.scale * scale.clip_norm)


def _rotation(plan: Plan, block: str, round: int) -> np.random.Generator:
    """Return the stream of the rotation that all owners of a block share in a round."""
    return rng.generator(plan.experiment.seed, "secure rotation", block, round)
