"""Noise for integers under secure aggregation: rounded Gaussian, Skellam, discrete Gaussian.

What each one guarantees:

| mechanism         | shares add up to              | guarantee of the sum                        |
|-------------------|-------------------------------|---------------------------------------------|
| rounded Gaussian  | a rounded Gaussian, up to a   | that of the Gaussian, and the ripple:       |
|                   | known ripple                  | docs/proofs.md (`rounding.py`)              |
| Skellam           | a Skellam, exactly            | Renyi: Agarwal et al., 2021, arXiv          |
|                   |                               | 2110.04995, corollary 3.6                   |
| discrete Gaussian | nearly a discrete Gaussian    | concentrated DP: Kairouz et al., 2021,      |
|                   |                               | arXiv 2102.06387, proposition 14            |

On the fine grid, where noise is added to integers, sensitivities are those *after* scaling and
rounding (`IntegerScale`), and noise must be calibrated to them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedfuse_ray.errors import InputError
from fedfuse_ray.privacy.mechanisms.exact import LARGEST_STD, rounded_normal

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class IntegerScale:
    """Units per 1.0 of gradient, and what rounding does to the sensitivity.

    An institution rounds its *sum*. Adding a record moves the scaled sum by at most scale * C, and
    rounding moves each of d coordinates by at most 1/2 on either side, so the integers move by at
    most scale * C + sqrt(d) in L2.

    Args:
        scale: Integer units per unit of the gradient.
        clip_norm: C.
        dimension: d, the coordinates of all blocks released together.
    """

    scale: float
    clip_norm: float
    dimension: int

    @property
    def l2(self) -> float:
        """L2 sensitivity in integer units."""
        return self.scale * self.clip_norm + math.sqrt(self.dimension)

    @property
    def l1(self) -> float:
        """L1 sensitivity; for integers also bounded by the square of the L2 sensitivity."""
        return min(math.sqrt(self.dimension) * self.l2, self.l2**2)

    def modulus_bits(self, records: int, noise_multiplier: float) -> int:
        """Return the bits of a modulus in which a sum can't wrap around.

        Room for `records` clipped records all in one coordinate, and twelve standard deviations
        of noise. Fewer bits cost no privacy, only the odd wrapped coordinate.
        """
        reach = records * self.scale * self.clip_norm + 12.0 * noise_multiplier * self.l2 + 1.0
        return math.ceil(math.log2(2.0 * reach + 1.0))


def integer_scale(clip_norm: float, dimension: int, overhead: float = 0.01) -> IntegerScale:
    """Return the scale at which rounding raises the sensitivity by the fraction `overhead`."""
    if dimension < 1 or clip_norm <= 0.0 or overhead <= 0.0:
        raise InputError(
            "integer scale", (clip_norm, dimension, overhead), "use positive numbers throughout"
        )
    return IntegerScale(math.sqrt(dimension) / (overhead * clip_norm), clip_norm, dimension)


def concentrated_terms(
    mechanism: str,
    noise_multiplier: float,
    sensitivity: IntegerScale,
    shares: int = 1,
    parts: int = 1,
) -> tuple[float, float]:
    """Return (rho, xi): Renyi divergence of integer order alpha is at most xi + rho * alpha.

    Args:
        mechanism: `skellam` or `discrete-gaussian`.
        noise_multiplier: sigma; the sum's standard deviation is sigma * sensitivity.l2.
        sensitivity: Scale and dimension of the integers.
        shares: K - t, the shares that the noise is made of.
        parts: How many institutions' sums one unit may move, each by the sensitivity.

    Raises:
        InputError: The mechanism has no such proof.
    """
    variance = (noise_multiplier * sensitivity.l2) ** 2
    l2, dimension = parts * sensitivity.l2, sensitivity.dimension
    if mechanism == "skellam":
        return _skellam_terms(variance, l2, parts * sensitivity.l1)
    if mechanism == "discrete-gaussian":
        return _discrete_gaussian_terms(variance, l2, dimension, shares)
    raise InputError("privacy.mechanism", mechanism, "use 'skellam' or 'discrete-gaussian'")


def _skellam_terms(variance: float, l2: float, l1: float) -> tuple[float, float]:
    square = l2**2
    rho = square / (2.0 * variance)
    # Both branches of the corollary's minimum hold; the first wins unless the noise is tiny.
    steep = (rho + square / (2.0 * variance**2), max(0.0, 6.0 * l1 - square) / (4.0 * variance**2))
    flat = (rho, 1.5 * l1 / variance)
    return _smaller(steep, flat)


def _discrete_gaussian_terms(
    variance: float, l2: float, dimension: int, shares: int
) -> tuple[float, float]:
    share_variance = variance / shares
    tau = 10.0 * math.fsum(
        math.exp(-2.0 * math.pi**2 * share_variance * k / (k + 1)) for k in range(1, shares)
    )
    ratio = l2 / math.sqrt(variance)
    shifted = (0.5 * ratio**2, tau * dimension)
    widened = (0.5 * (ratio + math.sqrt(dimension) * tau) ** 2, 0.0)
    return _smaller(shifted, widened)


def _smaller(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    # Order 16 is typical of the optimum at epsilon 1 and delta 1e-5; either pair is valid.
    return min(one, other, key=lambda terms: terms[1] + 16.0 * terms[0])


def rounded_gaussian(size: int, std: float, generator: np.random.Generator) -> Integers:
    """Return Gaussian noise rounded to the nearest integer, int64 [size], sampled exactly."""
    return rounded_normal(np.zeros(size), std, generator)


def skellam(size: int, std: float, generator: np.random.Generator) -> Integers:
    """Return the difference of two Poisson variates of mean std^2 / 2, int64 [size]."""
    mean = _checked(std) ** 2 / 2.0
    return generator.poisson(mean, size) - generator.poisson(mean, size)


def discrete_gaussian(size: int, std: float, generator: np.random.Generator) -> Integers:
    """Return integers with probability proportional to exp(-x^2 / (2 std^2)), int64 [size].

    Rejection from the discrete Laplace distribution (Canonne, Kamath and Steinke, 2020, arXiv
    2004.00010, algorithm 3), vectorised; probabilities are rounded to double precision where the
    original computes with rationals.
    """
    std = _checked(std)
    laplace_scale = math.floor(std) + 1
    success = -math.expm1(-1.0 / laplace_scale)
    found = np.empty(size, dtype=np.int64)
    filled = 0
    while filled < size:
        batch = int((size - filled) * 1.8) + 16
        value = generator.geometric(success, batch) - generator.geometric(success, batch)
        distance = np.abs(value) - std**2 / laplace_scale
        kept = value[generator.random(batch) < np.exp(-(distance**2) / (2.0 * std**2))]
        kept = kept[: size - filled]
        found[filled : filled + kept.size] = kept
        filled += kept.size
    return found


INTEGER_NOISE: dict[str, Callable[[int, float, np.random.Generator], Integers]] = {
    "gaussian": rounded_gaussian,
    "skellam": skellam,
    "discrete-gaussian": discrete_gaussian,
}
"""Sampler of one owner's integer share by mechanism: (size, std in integer units, generator)."""


def _checked(std: float) -> float:
    if not 0.0 < std <= LARGEST_STD:
        raise InputError("noise", std, "standard deviation above 0 and at most 2^30 units")
    return std
