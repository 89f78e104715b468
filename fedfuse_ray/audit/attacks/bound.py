"""How large epsilon must be, from the guesses about canaries of a single run.

Adversary: guesses which of m independently drawn canaries took part, and may abstain. Under
(epsilon, delta)-DP the number of correct guesses is dominated by a binomial of success probability
e^epsilon / (1 + e^epsilon), up to a term in delta. Source: Steinke, Nasr and Jagielski, 2023, arXiv
2305.08846, corollary 5.4 and appendix D.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedfuse_ray.errors import InputError

_LARGEST = 64.0
_PRECISION = 1e-4


@dataclass(frozen=True, slots=True)
class Guesses:
    """The outcome of an attack on canaries.

    Attributes:
        canaries: m, each included independently with probability 1/2.
        guessed: r, on how many the attack did not abstain.
        correct: v, how many of these guesses were right.

    Raises:
        InputError: Not 0 <= correct <= guessed <= canaries.
    """

    canaries: int
    guessed: int
    correct: int

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.guessed <= self.canaries:
            raise InputError(
                "guesses",
                (self.correct, self.guessed, self.canaries),
                "use correct <= guessed <= canaries, none below 0",
            )


def p_value(guesses: Guesses, epsilon: float, delta: float) -> float:
    """Return how likely so many correct guesses are at most, if the run were (epsilon, delta)-DP.

    beta + 2 m delta alpha, with beta = P[W >= v] and alpha = max over i in 1..v of
    P[v - i <= W < v] / i, where W is binomial with r trials.
    """
    v = guesses.correct
    pmf = binomial(guesses.guessed, 1.0 / (1.0 + math.exp(-epsilon)))
    beta = float(pmf[v:].sum())
    if v == 0 or delta == 0.0:
        return min(1.0, beta)
    below = np.cumsum(pmf[:v][::-1])
    alpha = float(np.max(below / np.arange(1, v + 1)))
    return min(1.0, beta + 2.0 * guesses.canaries * delta * alpha)


def epsilon_lower_bound(guesses: Guesses, delta: float, significance: float) -> float:
    """Return the largest epsilon that the guesses refute, to 1e-4; confidence is 1 - significance.

    Formal guarantees: if the run is (epsilon, delta)-DP, and canaries, scores and numbers of
    guesses were fixed before the inclusions were drawn, the value exceeds epsilon with a
    probability of at most `significance`.

    Raises:
        InputError: `significance` or `delta` is no probability.
    """
    if not (0.0 < significance < 1.0 and 0.0 <= delta < 1.0):
        raise InputError("significance, delta", (significance, delta), "use probabilities")
    if p_value(guesses, 0.0, delta) > significance:
        return 0.0
    low, high = 0.0, _LARGEST
    while high - low > _PRECISION:
        middle = (low + high) / 2.0
        if p_value(guesses, middle, delta) < significance:
            low = middle
        else:
            high = middle
    return low


def binomial(trials: int, success: float) -> npt.NDArray[np.float64]:
    """Return the probabilities of 0..trials successes, [trials + 1]."""
    if success in (0.0, 1.0):
        return np.eye(1, trials + 1, round(success) * trials).ravel()
    counts = np.arange(trials + 1)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, trials + 1)))])
    choose = factorials[trials] - factorials - factorials[::-1]
    logs = choose + counts * math.log(success) + (trials - counts) * math.log1p(-success)
    values: npt.NDArray[np.float64] = np.exp(logs)
    return values
