"""What releases tell of several units together, such as all records of one patient.

- Full-batch Gaussian releases: exactly what noise sigma / k tells of one unit (Dong, Roth and Su,
  2019, arXiv 1905.02383, theorem 2.14).
- Poisson-sampled ones: j of k members take part with binomial probability, and move the sum by j,
  which is a mixture of Gaussians (Charles et al., 2024, arXiv 2407.07737, on sampling examples).
- Discrete mechanisms: epsilon and delta of one unit make k epsilon and
  delta (e^(k epsilon) - 1) / (e^epsilon - 1), at the best delta (Vadhan, 2017, The Complexity of
  Differential Privacy, lemma 2.2).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
from dp_accounting import gaussian_mechanism
from dp_accounting.pld import privacy_loss_distribution
from scipy.stats import binom

from fedfuse_ray.errors import InputError
from fedfuse_ray.privacy.accounting.epsilon import epsilon, interval_of
from fedfuse_ray.privacy.accounting.ledger import PrivacyEvent

Group = tuple[Iterable[PrivacyEvent], float]
"""Releases, and how many times the sensitivity of each a group may move it."""

_LEAST_DELTA = 1e-60


def group_epsilon(groups: Iterable[Group], delta: float) -> float:
    """Return the epsilon of a group whose members stand behind independent releases.

    Args:
        groups: Of one joint sum, or of each institution that adds its own noise. Sizes of sampled
            releases are whole numbers: how many members an institution has, each sampled by itself.
        delta: The guarantee's delta.

    Raises:
        InputError: Discrete releases of several institutions, or a size that is not positive.
    """
    parts = [(tuple(events), size) for events, size in groups]
    for _, size in parts:
        if not size > 0.0:
            raise InputError("group", size, "a group has at least one member")
    if any(event.mechanism != "gaussian" for events, _ in parts for event in events):
        return _discrete(parts, delta)
    precision, sampled = 0.0, dict[tuple[float, float, int], int]()
    for events, size in parts:
        for event in events:
            if event.sampling_rate == 1.0:
                precision += event.count * (size / event.noise_multiplier) ** 2
            else:
                key = (event.noise_multiplier, event.sampling_rate, math.ceil(size))
                sampled[key] = sampled.get(key, 0) + event.count
    full_batch = math.inf if precision == 0.0 else 1.0 / math.sqrt(precision)
    if sampled:
        return _sampled(tuple(sampled.items()), full_batch, delta)
    if full_batch == math.inf:
        return 0.0
    return float(gaussian_mechanism.get_epsilon_gaussian(full_batch, delta))


def _sampled(
    releases: tuple[tuple[tuple[float, float, int], int], ...], full_batch: float, delta: float
) -> float:
    spreads = tuple((sigma / size, rate, count) for (sigma, rate, size), count in releases)
    interval = interval_of(spreads, full_batch)
    total: Any = None
    for (sigma, rate, size), count in releases:
        step = _mixture(sigma, rate, size, interval).self_compose(count)
        total = step if total is None else total.compose(step)
    if full_batch < math.inf:
        whole = privacy_loss_distribution.from_gaussian_mechanism(
            full_batch, value_discretization_interval=interval
        )
        total = total.compose(whole)
    return float(total.get_epsilon_for_delta(delta))


@lru_cache(maxsize=64)
def _mixture(sigma: float, rate: float, size: int, interval: float) -> Any:
    chances = binom.pmf(np.arange(size + 1), size, rate)
    moved = [(float(j), float(chance)) for j, chance in enumerate(chances) if chance > 0.0]
    # What underflowed counts as if all took part, so that nothing is left out.
    lost = max(0.0, 1.0 - math.fsum(chance for _, chance in moved))
    moved[-1] = (float(size), moved[-1][1] + lost)
    return privacy_loss_distribution.from_mixture_gaussian_mechanism(
        sigma,
        [j for j, _ in moved],
        [chance for _, chance in moved],
        value_discretization_interval=interval,
    )


def _discrete(parts: list[tuple[tuple[PrivacyEvent, ...], float]], delta: float) -> float:
    if len(parts) > 1:
        raise InputError("group", len(parts), "discrete releases are joint sums; give one group")
    events, size = parts[0][0], math.ceil(parts[0][1])
    for exponent in np.linspace(math.log(delta / size), math.log(_LEAST_DELTA), 200):
        alone = epsilon(events, math.exp(exponent))
        grown = exponent + math.log(math.fsum(math.exp(min(i * alone, 700.0)) for i in range(size)))
        if grown <= math.log(delta):
            return size * alone
    return math.inf
