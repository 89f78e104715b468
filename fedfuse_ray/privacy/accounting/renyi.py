"""Renyi accounting, for runs in which a discrete mechanism takes part, and where it is asked for.

A discrete release is known by its concentrated-DP terms: its Renyi divergence of order alpha is at
most xi + rho * alpha (Bun and Steinke, 2016, arXiv 1605.02065). Poisson sampling of such a release
is bounded by the general amplification theorem of Zhu and Wang (2019, PMLR 97, theorem 5), which
needs nothing but the curve at integer orders. Gaussian releases keep their own, tighter curve.

Of Gaussian releases alone this is the moments accountant (Abadi et al., 2016, arXiv 1607.00133) in
its present form: Renyi DP (Mironov, 2017, arXiv 1702.07476) of the sampled Gaussian mechanism
(Mironov, Talwar and Zhang, 2019, arXiv 1908.10530), as `dp_accounting` computes it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.rdp import RdpAccountant, compute_epsilon
from dp_accounting.rdp.rdp_privacy_accountant import DEFAULT_RDP_ORDERS
from scipy.special import gammaln, logsumexp

Curve = npt.NDArray[np.float64]

ORDERS: Curve = np.array(
    [*range(2, 65), *range(72, 257, 8), 320, 384, 512, 768, 1024, 2048, 4096, 16384],
    dtype=np.float64,
)
"""Integer orders: the Skellam bound and the amplification theorem hold for integers only."""

FINE: Curve = np.array(DEFAULT_RDP_ORDERS, dtype=np.float64)
"""Orders of Gaussian releases alone, fractions among them: what large epsilons are tight at."""

_LARGEST_AMPLIFIED = 256.0


def epsilon(
    composition: tuple[tuple[tuple[float, float, float, float, float], int], ...],
    delta: float,
    orders: Curve = ORDERS,
) -> float:
    """Return the epsilon of releases (sigma, rho, xi, ripple, sampling rate) with counts.

    Ripples are left to the caller. Curves are taken at `ORDERS` or `FINE`; discrete releases,
    whose sigma is 0, need `ORDERS`.

    Formal guarantees: Renyi curves add under adaptive composition; the conversion is the one of
    Canonne, Kamath and Steinke (2020, arXiv 2004.00010, proposition 12).
    """
    total = np.zeros_like(orders)
    for (sigma, rho, xi, _, rate), count in composition:
        step = _gaussian(sigma, rate, orders is FINE) if sigma > 0.0 else amplified(rho, xi, rate)
        total += count * step
    finite = np.isfinite(total)
    value, _ = compute_epsilon(orders[finite], total[finite], delta)
    return max(0.0, float(value))


def of_ripple(gamma: float, orders: Curve) -> Curve:
    """Return what a release's Renyi divergences exceed those of a release within exp(+-gamma) by.

    The integral of P^a P'^(1-a) is at most exp((2a - 1) gamma) times that of Q^a Q'^(1-a).
    """
    return gamma * (2.0 * orders - 1.0) / (orders - 1.0)


@lru_cache(maxsize=1024)
def _gaussian(sigma: float, rate: float, fine: bool) -> Curve:
    event = GaussianDpEvent(sigma)
    accountant = RdpAccountant(FINE if fine else ORDERS)
    with _quiet():
        accountant.compose(event if rate == 1.0 else PoissonSampledDpEvent(rate, event))
    return np.asarray(accountant.rdp, dtype=np.float64)


@contextmanager
def _quiet() -> Iterator[None]:
    # An order whose series does not converge is infinite here, and left out: the bound holds.
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@lru_cache(maxsize=1024)
def amplified(rho: float, xi: float, rate: float) -> Curve:
    """Return the curve of a release xi + rho * alpha under Poisson sampling, over `ORDERS`.

    Never worse than the unsampled curve; equal to it at orders above 256.
    """
    plain: Curve = xi + rho * ORDERS
    if rate == 1.0:
        return plain
    orders = ORDERS[ORDERS <= _LARGEST_AMPLIFIED]
    sampled = [_poisson_bound(int(order), rho, xi, rate) for order in orders]
    bound: Curve = np.concatenate([sampled, plain[len(orders) :]])
    return np.minimum(bound, plain)


def _poisson_bound(order: int, rho: float, xi: float, rate: float) -> float:
    ell = np.arange(2, order + 1, dtype=np.float64)
    binomial = gammaln(order + 1) - gammaln(ell + 1) - gammaln(order - ell + 1)
    terms = binomial + (order - ell) * np.log1p(-rate) + ell * np.log(rate)
    terms += (ell - 1) * (xi + rho * ell)
    terms[1:] += np.log(3.0)
    unmoved = (order - 1) * np.log1p(-rate) + np.log1p((order - 1) * rate)
    return float(logsumexp([unmoved, *terms])) / (order - 1)
