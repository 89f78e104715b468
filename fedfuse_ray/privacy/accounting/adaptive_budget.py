"""How much noise the next round gets, from what earlier rounds have released.

A full-batch Gaussian release of multiplier sigma is 1/sigma-GDP, and such releases compose exactly,
also where each sigma is chosen from the releases before it. As long as the sum of 1/sigma^2 stays
within B, the run is sqrt(B)-GDP, the same as if all sigmas had been fixed in advance (Smith and
Thakurta, 2022, arXiv 2210.17520; Koskela, Tobaben and Honkela, 2022, arXiv 2209.15596). Stopping
rules of this kind are filters (Rogers et al., 2016, arXiv 1605.08294; for Renyi DP, Feldman and
Zrnic, 2021, arXiv 2008.11193). Poisson-sampled releases have no exact one.

In units of a constant schedule, a round of factor f costs f^-2, and T rounds may cost T.

Formal guarantees: `next_factor` is a function of released quantities alone. After T rounds
the costs of its factors add up to at most T, whatever the signals were, and fall short by rounding
only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_TOLD_FROM_NOISE = 2.0
"""How many of its standard errors a signal has to reach to be taken for one."""


@dataclass(frozen=True, slots=True)
class Signal:
    """How much of a signal a round has released.

    Args:
        energy: An unbiased estimate of the squared norm of the mean gradient.
        error: Its standard error, where there is nothing but noise.
    """

    energy: float
    error: float


@dataclass(frozen=True, slots=True)
class Spending:
    """How a budget is spread over rounds.

    Args:
        rounds: T, the rounds of the run.
        spread: How far a factor may lie from 1, either way.
    """

    rounds: int
    spread: float

    def next_factor(self, factors: Sequence[float], signals: Sequence[Signal]) -> float:
        """Return the next round's factor on the noise multiplier.

        The rest of the budget is divided among the rounds to come, in proportion to the signal that
        is expected of each: it goes on to change as it did so far. The last round gets the rest.

        Args:
            factors: Of all rounds before it.
            signals: What these released.

        Returns:
            A number that float32 holds, so that it costs the same wherever it is computed.
        """
        left = self.rounds - cost(factors)
        coming = self.rounds - len(factors)
        change = self._change(signals)
        wanted = left / math.fsum(math.exp(change * later) for later in range(coming))
        least, most = self.spread**-2, self.spread**2
        # The rounds after it must be able to spend the rest, and have to spend something.
        lowest = max(least, left - (coming - 1) * most)
        highest = min(most, left - (coming - 1) * least)
        return _not_below(1.0 / math.sqrt(min(max(wanted, lowest), highest)))

    def _change(self, signals: Sequence[Signal]) -> float:
        """Return how the logarithm of the signal's norm changes a round: later half over earlier.

        Over a whole run it changes by 4 log(spread) at most, by assumption: that moves a round's
        noise from one end of the spread to the other. If the earlier half does not stand out from
        the noise, nothing is known, and the rest is divided evenly.
        """
        middle = (len(signals) + 1) // 2
        early, late = signals[:middle], signals[middle:]
        if not late:
            return 0.0
        before = math.fsum(s.energy for s in early) / len(early)
        after = math.fsum(s.energy for s in late) / len(late)
        error = math.hypot(*(s.error for s in early)) / len(early)
        steepest = 4.0 * math.log(self.spread) / (self.rounds - 1)
        if before <= _TOLD_FROM_NOISE * error:
            return 0.0
        if after <= 0.0:
            return -steepest
        change = 0.5 * math.log(after / before) / (len(signals) / 2.0)
        return min(max(change, -steepest), steepest)


def cost(factors: Sequence[float]) -> float:
    """Return what rounds of these factors cost, in rounds of a constant schedule."""
    return math.fsum(factor**-2 for factor in factors)


def _not_below(factor: float) -> float:
    """Return the smallest float32 that is not below a factor: rounding must not spend more."""
    rounded = np.float32(factor)
    if float(rounded) < factor:
        rounded = np.nextafter(rounded, np.float32(np.inf))
    return float(rounded)
