"""What choosing the best of several private runs costs.

Each run's ledger prices that run alone. Whoever runs N federations on the same data and releases
the best has looked at the data N times, and even the choice tells something: in the worst case
the best of a fixed number N of runs is as revealing as all N runs (Papernot and Steinke, 2022,
arXiv 2110.03620, section 3.2). So:

- A *fixed* number of runs is charged the composition of all their ledgers.
- When the number K is *drawn at random*, independently of the data, and every run draws its
  settings independently, the same paper's theorem 2 holds. K follows the truncated negative
  binomial distribution with parameters eta > -1 and gamma, on 1, 2, ...; if one run has Renyi
  divergence eps(a) at order a, the best run's is at most, for any order b >= 1,

      eps(a) + (1 + eta) (1 - 1/b) eps(b) + (1 + eta) log(1/gamma) / b + log(E K) / (a - 1).

  eta = 1 is the geometric distribution, eta = 0 the logarithmic one.

Assumptions: only the best run is released, with its settings; it is chosen by a score of the
released model on data outside the guarantee (the consortium's test specimens). A run with settings
drawn from several points is no more revealing than the worst of them (Renyi divergence is
quasi-convex), so the bound takes the largest curve over all points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.rdp import RdpAccountant, compute_epsilon

from fedfuse_ray.privacy.accounting import renyi
from fedfuse_ray.privacy.accounting.epsilon import (
    Composition,
    Release,
    epsilon_of,
    observe,
    observers,
    seen_by,
)
from fedfuse_ray.privacy.accounting.ledger import Ledger
from fedfuse_ray.studies.sweeping.number import ETA, Number, log_inverse_gamma

_FINE: renyi.Curve = np.array(
    [1.25, 1.5, 1.75, *np.arange(2.0, 12.0, 0.25), *range(12, 65), *range(72, 257, 8), 512.0],
    dtype=np.float64,
)


@dataclass(frozen=True)
class SelectionCost:
    """The price of a choice, at one delta; the largest over institutions.

    Attributes:
        runs: Private runs that were chosen among.
        delta: The guarantee's delta.
        largest_alone: The largest epsilon that one of the ledgers gives.
        number: How the number of runs came about.
        fixed: Epsilon of all runs together: what a fixed number costs.
        geometric: Epsilon of the best of a geometric number of runs with mean `runs`.
        logarithmic: The same for a logarithmic number.
    """

    runs: int
    delta: float
    largest_alone: float
    number: Number
    fixed: float
    geometric: float
    logarithmic: float

    @property
    def charged(self) -> float:
        """The epsilon of releasing the best run of this sweep."""
        return min(self.fixed, float(getattr(self, self.number)))


def selection_cost(
    ledgers: Sequence[Ledger], delta: float, number: Number = "fixed", mean: int | None = None
) -> SelectionCost:
    """Return what choosing among runs with these ledgers costs; all have one unit of privacy.

    `mean` is that of a number of runs that was drawn; by default the number of ledgers.

    Formal guarantees: every field bounds the epsilon of (epsilon, delta)-DP from above, under the
    assumptions at the head of this module. Sampled or discrete releases are composed in Renyi DP,
    full-batch Gaussian ones exactly.
    """
    names = sorted({name for ledger in ledgers for name in ledger.institutions()})
    by_name: dict[tuple[str, str], list[Composition]] = {}
    for name in names:
        each = [observe(ledger.of(name)) for ledger in ledgers]
        for observer in sorted({observer for observed in each for observer in observers(observed)}):
            by_name[name, observer] = [seen_by(observed, observer) for observed in each]
    alone = [epsilon_of(c, delta) for compositions in by_name.values() for c in compositions]
    expected = mean if number != "fixed" and mean is not None else len(ledgers)
    seen = by_name.values()
    random = {
        kind: max((_best_of(one, delta, expected, eta) for one in seen), default=0.0)
        for kind, eta in ETA.items()
    }
    return SelectionCost(
        runs=len(ledgers),
        delta=delta,
        largest_alone=max(alone, default=0.0),
        number=number,
        fixed=max((_together(one, delta) for one in seen), default=0.0),
        geometric=random["geometric"],
        logarithmic=random["logarithmic"],
    )


def best_of_curve(curve: renyi.Curve, orders: renyi.Curve, mean: float, eta: float) -> renyi.Curve:
    """Return the Renyi curve of the best of a random number of runs.

    Source: Papernot and Steinke, 2022, arXiv 2110.03620, theorem 2.

    Args:
        curve: Renyi divergence of one run at `orders`.
        orders: Above 1.
        mean: E K, above 1.
        eta: The distribution's shape: 1 geometric, 0 logarithmic.
    """
    log_inverse = log_inverse_gamma(mean, eta)
    other = (1.0 + eta) * ((1.0 - 1.0 / orders) * curve + log_inverse / orders)
    cheapest = min(float(np.min(other)), (1.0 + eta) * log_inverse)
    bound: renyi.Curve = curve + cheapest + math.log(mean) / (orders - 1.0)
    return bound


def told(cost: SelectionCost) -> str:
    """Return the cost in a sentence or two, for the terminal and the page."""
    if cost.runs == 1:
        return f"One private run: nothing was chosen, epsilon {cost.charged:.2f}."
    how = {
        "fixed": f"the number of runs was fixed, so that all {cost.runs} ledgers add up",
        "geometric": "the number of runs was drawn from a geometric distribution",
        "logarithmic": "the number of runs was drawn from a logarithmic distribution",
    }[cost.number]
    text = (
        f"Releasing the best of {cost.runs} private runs costs epsilon {cost.charged:.2f} at delta "
        f"{cost.delta:g}, not the {cost.largest_alone:.2f} of one run: {how}."
    )
    cheaper = min(cost.geometric, cost.logarithmic)
    if cost.number == "fixed" and cheaper < cost.fixed:
        text += (
            f" Random points in a random number with the same mean would cost {cheaper:.2f} "
            "(search.number)."
        )
    return text


def _best_of(compositions: Sequence[Composition], delta: float, mean: float, eta: float) -> float:
    if mean <= 1:
        return max(epsilon_of(c, delta) for c in compositions)
    orders = _orders(compositions)
    worst = np.max([_curve(c, orders is _FINE) for c in compositions], axis=0)
    return _to_epsilon(orders, best_of_curve(worst, orders, mean, eta), delta)


def _together(compositions: Sequence[Composition], delta: float) -> float:
    counts: dict[Release, int] = {}
    for composition in compositions:
        for release, count in composition:
            counts[release] = counts.get(release, 0) + count
    together = tuple(counts.items())
    if len(compositions) == 1 or all(
        sigma > 0 and rate == 1.0 for (sigma, *_, rate), _ in together
    ):
        return epsilon_of(together, delta)
    orders = _orders(compositions)
    return _to_epsilon(orders, _curve(together, orders is _FINE), delta)


def _orders(compositions: Sequence[Composition]) -> renyi.Curve:
    """Return fine orders, unless a discrete mechanism takes part, which is bounded at integers."""
    discrete = any(sigma == 0.0 for c in compositions for (sigma, *_), _ in c)
    return renyi.ORDERS if discrete else _FINE


def _curve(composition: Composition, fine: bool) -> renyi.Curve:
    orders = _FINE if fine else renyi.ORDERS
    total: renyi.Curve = np.zeros(len(orders))
    for (sigma, rho, xi, ripple, rate), count in composition:
        step = _gaussian(sigma, rate, fine) if sigma > 0.0 else renyi.amplified(rho, xi, rate)
        total = total + count * (step + renyi.of_ripple(ripple, orders))
    return total


@lru_cache(maxsize=4096)
def _gaussian(sigma: float, rate: float, fine: bool) -> renyi.Curve:
    event = GaussianDpEvent(sigma)
    accountant = RdpAccountant(_FINE if fine else renyi.ORDERS)
    accountant.compose(event if rate == 1.0 else PoissonSampledDpEvent(rate, event))
    return np.asarray(accountant.rdp, dtype=np.float64)


def _to_epsilon(orders: renyi.Curve, curve: renyi.Curve, delta: float) -> float:
    finite = np.isfinite(curve)
    value, _ = compute_epsilon(orders[finite], curve[finite], delta)
    return max(0.0, float(value))
