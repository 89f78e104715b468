"""What rounding each share of Gaussian noise by itself can give away, and the grid that allows it.

Institutions hold vectors x_i and send round((x_i + N(0, s^2)) / Delta); a server learns the sum of
n of them. docs/proofs.md proves that in every coordinate the law p of this sum, and the law q of
the sum of x plus N(0, n s^2) *rounded afterwards*, lie within a factor of each other:

    (1 - eta) q <= p <= (1 + eta) q,    eta <= u / (1 - u),
    u = sum over j = 1..n-1 of binomial(n, j) exp(-2 pi^2 (s / Delta)^2 j (n - j) / n).

q is the Gaussian mechanism and then a computation that knows nothing of the data. So releases of
d coordinates in all are (epsilon + 2 gamma, delta exp(gamma))-DP where the Gaussian releases are
(epsilon, delta)-DP, for gamma = -d ln(1 - eta). A run may spend `RIPPLE` on gamma, is charged all
of it, and its grids are fine enough for that.

Sources: the smoothing of lattices, Micciancio and Regev, 2007, doi 10.1137/S0097539705447360; sums
of discrete Gaussians in this way: Kairouz, Liu and Steinke, 2021, arXiv 2102.06387, section 3.3.
"""

from __future__ import annotations

import math
from functools import lru_cache

from fedfuse_ray.errors import InputError

RIPPLE = 1e-5
"""Gamma of a whole run, in equal parts a round: epsilon is 2e-5 higher, and delta 1e-5 of itself.

So a run is charged the same whatever its model's size; the grid follows from the size.
"""

_HALVINGS = 40


def smoothing_error(shares: int, deviation: float) -> float:
    """Return a bound of eta: how far rounding apart and rounding the sum differ, as a fraction.

    Args:
        shares: n, the honest shares in the sum.
        deviation: s / Delta, one share's standard deviation in grid steps.

    Returns:
        At least 0; infinite where the bound says nothing. A single share gives exactly 0.

    Formal guarantees: an upper bound for any values of the institutions' own vectors; it falls as
    the deviation grows.

    Raises:
        InputError: No share, or a deviation that is not positive.

    >>> f"{smoothing_error(shares=14, deviation=1.25):.1e}"
    '1.0e-11'
    """
    if shares < 1 or not deviation > 0.0:
        raise InputError("noise shares", (shares, deviation), "use at least one, of positive width")
    steep = 2.0 * math.pi**2 * deviation**2 / shares
    terms = (
        math.exp(min(0.0, _log_binomial(shares, j) - steep * j * (shares - j)))
        for j in range(1, shares)
    )
    total = math.fsum(terms)
    return total / (1.0 - total) if total < 1.0 else math.inf


def ripple(shares: int, deviation: float) -> float:
    """Return gamma of one coordinate: the most that |ln(p / q)| can be; see `smoothing_error`."""
    eta = smoothing_error(shares, deviation)
    return -math.log1p(-eta) if eta < 1.0 else math.inf


@lru_cache(maxsize=1024)
def coarsest_step(shares: int, allowed: float) -> float:
    """Return the coarsest grid on which a coordinate's gamma stays within what is allowed.

    Args:
        shares: n, the honest shares in the sum.
        allowed: Gamma of one coordinate.

    Returns:
        Delta / s, a grid step in standard deviations of one share, cut to three decimals so that
        all machines agree; infinite for a single share, which no grid harms.

    Formal guarantees: `ripple(shares, 1 / step)` is at most `allowed`.

    Raises:
        InputError: Nothing is allowed.

    >>> round(coarsest_step(shares=14, allowed=1e-11), 2)
    0.8
    """
    if not allowed > 0.0:
        raise InputError("ripple", allowed, "allow more than 0: no grid has none")
    if shares == 1:
        return math.inf
    fine, coarse = 1e-3, 16.0
    for _ in range(_HALVINGS):
        middle = math.sqrt(fine * coarse)
        fits = ripple(shares, 1.0 / middle) <= allowed
        fine, coarse = (middle, coarse) if fits else (fine, middle)
    return math.floor(1e3 * fine) / 1e3


def _log_binomial(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
