"""How far from a claimed Gaussian mechanism the releases are, from guesses about its canaries.

Adversary: guesses which of m independently drawn canaries took part, and may abstain. The claim is
a whole trade-off curve, that of one Gaussian release of a sensitivity of `mu` standard deviations
(mu-GDP), not one point (epsilon, delta) of it, so nothing is lost to a delta for each canary. A
composition of full-batch Gaussian releases is one Gaussian release with mu^2 = sum 1 / sigma_t^2
(Dong, Roth and Su, 2022, arXiv 1905.02383).

Source: Mahloujifar, Melis and Chaudhuri, 2024, arXiv 2410.22235, theorem 3.2 and algorithm 3. With
c of c' guesses right with probability tau, alpha_i and beta_i (how often a guess is right, or
wrong, when at least i are right) begin at i = c, and theorem 3.1 bounds them from below as i falls;
at i = 0 they can't add up to more than c' / m.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from dp_accounting import gaussian_mechanism
from scipy.special import ndtr, ndtri

from fedfuse_ray.audit.attacks.bound import Guesses
from fedfuse_ray.errors import InputError

Floats = npt.NDArray[np.float64]

_LEAST, _LARGEST = 1e-3, 30.0
_CANDIDATES = 16
_PRECISION = 1e-3


def epsilon_of(mu: float, delta: float) -> float:
    """Return the epsilon of mu-GDP at delta (Balle and Wang, 2018, arXiv 1805.06530)."""
    return float(gaussian_mechanism.get_epsilon_gaussian(1.0 / mu, delta)) if mu > 0.0 else 0.0


def mu_of(epsilon: float, delta: float) -> float:
    """Return the mu of the mu-GDP that has this epsilon at delta."""
    return 1.0 / float(gaussian_mechanism.get_sigma_gaussian(epsilon, delta))


def refuted(guesses: Guesses, mu: Floats, significance: Floats) -> npt.NDArray[np.bool_]:
    """Return which claims so many correct guesses refute.

    Args:
        guesses: The outcome.
        mu: The claims, [n].
        significance: With which probability each may be refuted wrongly, [n].

    Formal guarantees: if adding or removing one canary is mu-GDP, whatever the others do and
    however releases depend on one another, and the number of guesses was fixed beforehand, the
    claim is refuted with a probability of at most `significance`.
    """
    m, most, right = guesses.canaries, guesses.guessed, guesses.correct
    if not right:
        return np.zeros(np.broadcast(mu, significance).shape, bool)
    alpha, beta = significance * right / m, significance * (most - right) / m
    for i in range(right - 1, -1, -1):
        # At 1 there is a contradiction already; beyond it the quantile is not defined.
        wrong = np.maximum(beta, ndtr(ndtri(np.minimum(alpha, 1.0)) - mu))
        alpha = alpha + i / (most - i) * (wrong - beta)
        beta = wrong
    return np.asarray(alpha + beta > most / m)


def gaussian_lower_bound(groups: Sequence[Guesses], significance: float) -> float:
    """Return the largest mu that all of several independent runs refute, to a thousandth of it.

    One run alone proves little, however many canaries it has: its canaries may all be given away
    together, by one event of a probability of `significance`. Of G runs with noise of their own,
    each need only be as sure as significance^(1/G), since all G have to agree.

    Args:
        groups: The outcomes of G runs whose noise and canaries were drawn independently.
        significance: With which probability the value may exceed the true mu.

    Raises:
        InputError: `significance` is no probability, or there are no groups.
    """
    if not (0.0 < significance < 1.0 and groups):
        raise InputError("significance", significance, "use a probability, and one run at least")
    each = significance ** (1.0 / len(groups))
    return min(_largest_refuted(guesses, each) for guesses in groups)


def _largest_refuted(guesses: Guesses, significance: float) -> float:
    """Return the largest mu that one run refutes; 0 if none."""
    if guesses.canaries == 0:
        return 0.0
    low, high = 0.0, _LARGEST
    candidates = np.geomspace(_LEAST, _LARGEST, _CANDIDATES)
    while high - low > _PRECISION * high:
        # Who is less private than mu is less private than all below: the refuted ones come first.
        out = refuted(guesses, candidates, np.full(len(candidates), significance))
        count = len(out) if out.all() else int(np.argmin(out))
        if count == len(out):
            return float(candidates[-1])
        if count == 0 and low == 0.0:
            return 0.0
        low = float(candidates[count - 1]) if count else low
        high = float(candidates[count])
        candidates = np.linspace(low, high, _CANDIDATES)
    return low


def gaussian_p_value(groups: Sequence[Guesses], mu: float) -> float:
    """Return the least significance at which `gaussian_lower_bound` refutes mu-GDP, to 5%."""
    if mu <= 0.0 or not all(guesses.canaries for guesses in groups):
        return 1.0
    grid = np.geomspace(1e-9, 1.0, 400)
    least = 0.0
    for guesses in groups:
        out = refuted(guesses, np.full(len(grid), mu), grid)
        least = max(least, float(grid[int(np.argmax(out))]) if out.any() else 1.0)
    return math.pow(least, len(groups))
