"""The one-run audit: how much privacy the releases lost at least, with 95% confidence.

The attack scores each canary by its log-likelihood ratio under the claimed noise, guesses that the
highest took part and the lowest did not, and abstains on the rest. The error probability is shared
out over tests that are fixed beforehand: half of it for the canaries of all blocks together, the
other half for those of each block and for those spread over blocks, so that a fault in one small
block does not drown. Source: Steinke, Nasr and Jagielski, 2023, arXiv 2305.08846, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedfuse_ray import rng
from fedfuse_ray.audit.attacks.bound import Guesses, epsilon_lower_bound
from fedfuse_ray.audit.attacks.canaries import JOINT, HostCanaries, draw_canaries
from fedfuse_ray.audit.attacks.releases import released_variances, releases, reseeded
from fedfuse_ray.federation.plan.plan import Plan

EVERY = "all blocks"
"""Group of all canaries that lie in a single block."""

SIGNIFICANCE = 0.05

# On each side, of all canaries and of one block's. Few and sure guesses prove most about all; a
# block without noise gives a quarter away on each side where two canaries share a coordinate.
_GUESSED, _GUESSED_IN_BLOCK = 0.05, 0.18


@dataclass(frozen=True)
class CanaryTest:
    """What one group of canaries shows: a block's, `EVERY` or `canaries.JOINT`.

    Epsilon is at least `lower_bound`, unless a chance of `significance` came true.
    """

    group: str
    guesses: Guesses
    significance: float
    lower_bound: float


@dataclass(frozen=True)
class CanaryAudit:
    """The finding beside what the ledger claims.

    All tests together err with probability `SIGNIFICANCE` at most.
    """

    epsilon: float
    delta: float
    rounds: int
    tests: tuple[CanaryTest, ...]

    @property
    def worst(self) -> CanaryTest:
        """The test with the largest lower bound."""
        return max(self.tests, key=lambda test: test.lower_bound)

    @property
    def lower_bound(self) -> float:
        """What epsilon is at least."""
        return self.worst.lower_bound

    @property
    def passed(self) -> bool:
        """Whether the ledger's claim is compatible with what was seen."""
        return self.lower_bound <= self.epsilon


def audit_canaries(
    plan: Plan, sizes: Mapping[str, int], *, epsilon: float, rounds: int, canaries: int, seed: int
) -> CanaryAudit:
    """Audit the releases of a plan with privacy terms against the epsilon that its ledger claims.

    The seed draws `canaries` (m), inclusions and noise anew.

    Raises:
        InputError: A privacy mode, or a model, that canaries can't audit.
    """
    terms = plan.terms
    generator = rng.generator(seed, "canaries")
    hosts = draw_canaries(plan, terms, sizes, canaries, generator)
    fresh = reseeded(plan, rng.derive(seed, "canary noise") >> 1)
    scores = _scores(fresh, hosts, sizes, rounds)
    included = np.concatenate([host.included for host in hosts])
    groups = np.concatenate([host.groups for host in hosts])
    tests = _tests(scores, included, groups, terms.config.delta)
    return CanaryAudit(epsilon, terms.config.delta, rounds, tests)


def guess(
    scores: npt.NDArray[np.float64], included: npt.NDArray[np.bool_], fraction: float
) -> Guesses:
    """Guess the highest scores in and the lowest out, `fraction` of all on each side."""
    count = len(scores)
    each = min(max(1, round(fraction * count)), count // 2)
    order = np.argsort(scores, kind="stable")
    right = int((~included[order[:each]]).sum() + included[order[count - each :]].sum())
    return Guesses(count, 2 * each, right)


def _scores(
    plan: Plan, hosts: Sequence[HostCanaries], sizes: Mapping[str, int], rounds: int
) -> npt.NDArray[np.float64]:
    """Return every canary's score, in the order of the hosts: a linear discriminant.

    Canaries may share coordinates. What all of them add in the mean is taken off first, and the
    variance of what they add, which stays the same from round to round, counts as noise.
    """
    terms = plan.terms
    totals = {host.institution: np.zeros(len(host)) for host in hosts}
    prior = _prior(plan, hosts, sizes)
    for number, released in enumerate(releases(plan, hosts, sizes, rounds), 1):
        for host in hosts:
            name = host.institution
            variances = released_variances(plan, terms, name, number)
            seen = np.concatenate(
                [
                    (released[name][block] - mean) / (variances[block] + rounds * spread)
                    for block, (mean, spread) in prior[name].items()
                ]
            )
            means = _mean(plan, name) * host.values
            totals[name] += (means * seen[host.positions]).sum(axis=1)
    return np.concatenate([totals[host.institution] for host in hosts])


def _mean(plan: Plan, host: str) -> float:
    """Return how often an included canary is in a round's release, in the mean."""
    release = plan.terms.releases[host]
    return release.sampling_rate * release.steps * plan.terms.config.institutions_per_unit


Moments = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Mean and variance of a block's coordinates."""


def _prior(
    plan: Plan, hosts: Sequence[HostCanaries], sizes: Mapping[str, int]
) -> dict[str, dict[str, Moments]]:
    """Return the moments of what canaries add to each host's blocks, before anything is seen."""
    own: dict[str, dict[str, Moments]] = {}
    for host in hosts:
        blocks = plan.blocks_of(plan.by_name[host.institution])
        means = _mean(plan, host.institution) / 2.0 * host.values
        first = np.zeros(sum(sizes[b] for b in blocks))
        second = np.zeros_like(first)
        np.add.at(first, host.positions, means)
        np.add.at(second, host.positions, means**2)
        cuts = np.cumsum([sizes[b] for b in blocks])[:-1]
        pairs = zip(np.split(first, cuts), np.split(second, cuts), strict=True)
        own[host.institution] = dict(zip(blocks, pairs, strict=True))
    if not plan.terms.distributed:
        return own
    total = {block: (np.zeros(size), np.zeros(size)) for block, size in sizes.items()}
    for parts in own.values():
        for block, (mean, spread) in parts.items():
            total[block] = (total[block][0] + mean, total[block][1] + spread)
    return {name: {block: total[block] for block in parts} for name, parts in own.items()}


def _tests(
    scores: npt.NDArray[np.float64],
    included: npt.NDArray[np.bool_],
    groups: npt.NDArray[np.str_],
    delta: float,
) -> tuple[CanaryTest, ...]:
    names = sorted(set(groups.tolist()))
    parts = [(EVERY, groups != JOINT, _GUESSED, SIGNIFICANCE / 2)]
    for name in names:
        share = SIGNIFICANCE / 2 / len(names)
        parts.append((name, groups == name, _GUESSED_IN_BLOCK, share))
    tests = []
    for name, chosen, fraction, significance in parts:
        guesses = guess(scores[chosen], included[chosen], fraction)
        bound = epsilon_lower_bound(guesses, delta, significance)
        tests.append(CanaryTest(name, guesses, significance, bound))
    return tuple(tests)
