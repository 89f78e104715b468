"""From ledger events to epsilon.

Gaussian releases are accounted by privacy loss distributions (Koskela et al., 2020, arXiv
1906.03049; Doroshenko et al., 2022, arXiv 2207.04380) as implemented in `dp_accounting`, with
pessimistic rounding: the epsilon is an upper bound. Full-batch Gaussian releases compose exactly
into a single one with 1/sigma^2 = sum 1/sigma_i^2, whose epsilon is known in closed form (Balle and
Wang, 2018, arXiv 1805.06530, equation 6). As soon as a discrete mechanism takes part, everything is
composed in Renyi DP instead (`renyi.py`), as it is where `rdp` is asked for.

Adaptive composition: each round's mechanism may depend on earlier outputs. Its noise multiplier may
too where all releases are full-batch Gaussian (`adaptive_budget.py`); otherwise it and the sampling
rate are fixed in advance.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

from dp_accounting import gaussian_mechanism
from dp_accounting.pld import privacy_loss_distribution

from fedfuse_ray.errors import InputError
from fedfuse_ray.privacy.accounting import renyi
from fedfuse_ray.privacy.accounting.ledger import PrivacyEvent

Release = tuple[float, float, float, float, float]
"""(noise multiplier, rho, xi, ripple, sampling rate): rho and xi are 0 for the Gaussian, sigma and
ripple are 0 for discrete mechanisms."""

Composition = tuple[tuple[Release, int], ...]
"""Distinct releases with the number of times each was made, in order of first appearance."""

_GRID_POINTS = 3e5


def compose(events: Iterable[PrivacyEvent], onto: Composition = ()) -> Composition:
    """Fold events into distinct releases and counts, after those of `onto`."""
    return _added(onto, ((_release(event), event.count) for event in events))


def _release(event: PrivacyEvent) -> Release:
    sigma = event.noise_multiplier if event.mechanism == "gaussian" else 0.0
    return sigma, event.rho or 0.0, event.xi or 0.0, event.ripple or 0.0, event.sampling_rate


def _added(onto: Composition, releases: Iterable[tuple[Release, int]]) -> Composition:
    counts = dict(onto)
    for release, count in releases:
        counts[release] = counts.get(release, 0) + count
    return tuple(counts.items())


Observed = Mapping[str, Composition]
"""Compositions by who sees the releases; "" has those that everybody sees.

Releases of records that nobody trains on stand apart, under `OTHER_RECORDS`: no record is in both
parts, so the two compose in parallel (McSherry, 2009, doi 10.1145/1559845.1559850).
"""

OTHER_RECORDS = "records not trained on"


def observe(events: Iterable[PrivacyEvent], onto: Observed | None = None) -> Observed:
    """Fold events by observer, those of records not trained on apart, after those of `onto`."""
    before, apart = onto or {}, grouped(events, _part)
    return {**before, **{who: compose(own, before.get(who, ())) for who, own in apart.items()}}


def _part(event: PrivacyEvent) -> str:
    return OTHER_RECORDS if event.records else event.observer or ""


def grouped(
    events: Iterable[PrivacyEvent], key: Callable[[PrivacyEvent], str]
) -> dict[str, list[PrivacyEvent]]:
    """Return events by a key, in order of first appearance."""
    apart: dict[str, list[PrivacyEvent]] = {}
    for event in events:
        apart.setdefault(key(event), []).append(event)
    return apart


def seen_by(observed: Observed, observer: str) -> Composition:
    """Return what an observer sees: its own releases, after those that everybody sees."""
    if observer == OTHER_RECORDS:
        return observed.get(observer, ())
    return _added(observed.get("", ()), observed.get(observer, ()) if observer else ())


def observers(observed: Observed) -> list[str]:
    """Return whose view has an epsilon of its own; "" where all releases are seen by everybody."""
    apart = [OTHER_RECORDS] if OTHER_RECORDS in observed else []
    return (sorted(who for who in observed if who and who not in apart) or [""]) + apart


def worst(observed: Observed, delta: float, accountant: str = "pld") -> float:
    """Return the epsilon against the observer who learns most; observers pool nothing."""
    return max(epsilon_of(seen_by(observed, o), delta, accountant) for o in observers(observed))


def epsilon(events: Iterable[PrivacyEvent], delta: float, accountant: str = "pld") -> float:
    """Return the epsilon of one institution's events together: the largest of any record of it.

    The accountant is `pld`, or `rdp` for Renyi DP throughout.

    Formal guarantees: an upper bound on the epsilon of (epsilon, delta)-DP under adaptive
    composition, for one unit's contribution replaced by zero, against each observer by itself. No
    events cost 0.

    Raises:
        InputError: `delta` is no probability.
    """
    return worst(observe(events), delta, accountant)


@lru_cache(maxsize=4096)
def epsilon_of(composition: Composition, delta: float, accountant: str = "pld") -> float:
    """Return the epsilon of a composition; see `epsilon`."""
    if not 0.0 < delta < 1.0:
        raise InputError("privacy.delta", delta, "use a probability above 0 and below 1")
    gamma = math.fsum(n * ripple for (*_, ripple, _), n in composition)
    if gamma > 0.0:
        if delta * math.exp(-gamma) == 0.0:
            return math.inf
        smooth = tuple(((*terms, 0.0, rate), n) for (*terms, _, rate), n in composition)
        return rippled(epsilon_of(smooth, delta * math.exp(-gamma), accountant), gamma)
    if any(sigma == 0.0 for (sigma, *_), _ in composition):
        return renyi.epsilon(composition, delta)
    if accountant == "rdp":
        return renyi.epsilon(composition, delta, renyi.FINE)
    sampled = tuple((sigma, rate, n) for (sigma, *_, rate), n in composition if rate < 1.0)
    precision = math.fsum(n / sigma**2 for (sigma, *_, rate), n in composition if rate == 1.0)
    full_batch = math.inf if precision == 0.0 else 1.0 / math.sqrt(precision)
    if not sampled:
        if full_batch == math.inf:
            return 0.0
        return float(gaussian_mechanism.get_epsilon_gaussian(full_batch, delta))
    return _pld_epsilon(sampled, full_batch, delta)


def rippled(epsilon: float, gamma: float) -> float:
    """Return what releases cost whose laws lie within exp(+-gamma) of releases that cost epsilon.

    The latter are to be accounted at a delta that is smaller by the factor exp(-gamma):
    P(A) <= e^g Q(A) <= e^g (e^eps Q'(A) + delta) <= e^(eps + 2g) P'(A) + e^g delta.
    """
    return epsilon + 2.0 * gamma


Sampled = tuple[tuple[float, float, int], ...]
"""(noise multiplier, sampling rate, count) of Poisson-sampled Gaussian releases."""


def _pld_epsilon(sampled: Sampled, full_batch: float, delta: float) -> float:
    interval = interval_of(sampled, full_batch)
    total = _composed(sampled, interval)
    if full_batch < math.inf:
        total = total.compose(_step(full_batch, 1.0, interval))
    return float(total.get_epsilon_for_delta(delta))


_composed_cache: OrderedDict[tuple[Sampled, float], Any] = OrderedDict()
"""Loss distributions of beginnings of runs, so that a run with changing noise adds one a round."""

_CACHED_COMPOSITIONS = 64


def _composed(sampled: Sampled, interval: float) -> Any:
    prefix = len(sampled)
    while prefix and (sampled[:prefix], interval) not in _composed_cache:
        prefix -= 1
    total = _composed_cache.get((sampled[:prefix], interval))
    for done, (sigma, rate, count) in enumerate(sampled[prefix:], prefix + 1):
        step = _step(sigma, rate, interval).self_compose(count)
        total = step if total is None else total.compose(step)
        # The last two, since in the next round the last release may only have a higher count.
        if done >= len(sampled) - 1:
            _composed_cache[sampled[:done], interval] = total
    while len(_composed_cache) > _CACHED_COMPOSITIONS:
        _composed_cache.popitem(last=False)
    return total


@lru_cache(maxsize=256)
def _step(sigma: float, rate: float, interval: float) -> Any:
    return privacy_loss_distribution.from_gaussian_mechanism(
        sigma, sampling_prob=rate, value_discretization_interval=interval
    )


def interval_of(sampled: Sampled, full_batch: float) -> float:
    """Return a discretisation of the privacy loss: fine for one step, affordable for all.

    A step's loss spreads over about q/sigma. Rounding it to an interval h adds a variance of about
    h q/sigma a step, so h is a thirtieth of sum (q/sigma)^2 / sum q/sigma, which costs about
    0.1% of epsilon. The grid is capped: `reach` bounds the losses that matter from above. Powers
    of two, so that distributions stay comparable from round to round.
    """
    spreads = [(rate / sigma, count) for sigma, rate, count in sampled]
    finest = sum(n * s * s for s, n in spreads) / sum(n * s for s, n in spreads) / 30.0
    loss, reach = 0.0 if full_batch == math.inf else 0.5 / full_batch**2, 0.0
    for sigma, rate, count in sampled:
        amplified = rate**2 * math.expm1(min(sigma**-2, 700.0)) / 2.0
        loss += count * min(amplified, rate / (2.0 * sigma**2))
        reach = max(reach, (1.0 + 20.0 * sigma) / (2.0 * sigma**2) + math.log(rate))
    reach = max(reach, loss + 10.0 * math.sqrt(2.0 * loss))
    fine = 2.0 ** math.floor(math.log2(min(finest, 0.1)))
    return max(fine, 2.0 ** math.ceil(math.log2(max(reach / _GRID_POINTS, 1e-7))))


def epsilon_by_institution(
    events: Iterable[PrivacyEvent], delta: float, accountant: str = "pld"
) -> dict[str, float]:
    """Return each institution's epsilon.

    A record lives at one institution, so institutions compose in parallel: the federation's
    epsilon is the maximum.
    """
    by_name = grouped(events, lambda event: event.institution)
    return {name: epsilon(by_name[name], delta, accountant) for name in sorted(by_name)}


def largest(epsilons: Mapping[str, float]) -> float:
    """Return the federation's epsilon: the maximum over institutions, 0 without any."""
    return max(epsilons.values(), default=0.0)
