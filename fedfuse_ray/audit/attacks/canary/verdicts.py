"""What each group of canaries proves, and the verdict over all of them.

The error probability is shared out over tests that are fixed beforehand: most of it for the
canaries of all blocks together, the rest for those of each block, for those spread over blocks, and
for a second run of the same seed on another budget, so that a fault in one small block, or noise
that two runs share, does not drown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedfuse_ray.audit.attacks.bound import Guesses, epsilon_lower_bound
from fedfuse_ray.audit.attacks.canaries import JOINT, HostCanaries
from fedfuse_ray.audit.attacks.tradeoff import epsilon_of, gaussian_lower_bound

EVERY = "all blocks"
"""Group of all canaries that lie in a single block."""

TWO_RUNS = "two runs"
"""Group of the canaries that are seen by two runs of one seed with different budgets."""

SIGNIFICANCE = 0.05

# What each test may err with: all blocks, the spread canaries, two runs, and every block together.
_OF_ALL, _OF_SPREAD, _OF_PAIR, _OF_BLOCKS = 0.041, 0.004, 0.001, 0.004

# On each side, of all canaries and of one block's. Few and sure guesses prove most about all; a
# block without noise gives many away, also where canaries share a coordinate.
_GUESSED, _GUESSED_IN_BLOCK = 0.025, 0.18

Scores = npt.NDArray[np.float64]
Included = npt.NDArray[np.bool_]
Names = npt.NDArray[np.str_]


@dataclass(frozen=True)
class CanaryTest:
    """What one group of canaries shows: a block's, `EVERY`, `JOINT` or `TWO_RUNS`.

    Epsilon is at least `lower_bound`, unless a chance of `significance` came true.

    Attributes:
        group: Whose canaries.
        guesses: Of each independent group of runs; all have to agree.
        significance: Its part of the error probability.
        claim: The epsilon that is claimed for what it looks at.
        lower_bound: What epsilon is at least.
    """

    group: str
    guesses: tuple[Guesses, ...]
    significance: float
    claim: float
    lower_bound: float

    @property
    def total(self) -> Guesses:
        """The guesses of all groups of runs together."""
        groups = self.guesses
        return Guesses(
            sum(g.canaries for g in groups),
            sum(g.guessed for g in groups),
            sum(g.correct for g in groups),
        )

    @property
    def passed(self) -> bool:
        """Whether the claim is compatible with what was seen."""
        return self.lower_bound <= self.claim


@dataclass(frozen=True)
class CanaryAudit:
    """The finding beside what the ledger claims.

    All tests together err with probability `SIGNIFICANCE` at most.

    Attributes:
        epsilon: The ledger's.
        delta: Of the claim.
        rounds: That a run released.
        unit: Whose canaries: `record` or `institution`.
        bound: `f-DP`, or `(epsilon, delta)-DP` under sampling.
        tests: In the order in which they are shown; the first is of all blocks.
    """

    epsilon: float
    delta: float
    rounds: int
    unit: str
    bound: str
    tests: tuple[CanaryTest, ...]

    @property
    def worst(self) -> CanaryTest:
        """The test that comes closest to its claim, or exceeds it most."""
        return max(self.tests, key=lambda test: test.lower_bound / test.claim)

    @property
    def lower_bound(self) -> float:
        """What epsilon of one run is at least."""
        return max(test.lower_bound for test in self.tests if test.group != TWO_RUNS)

    @property
    def passed(self) -> bool:
        """Whether all claims are compatible with what was seen."""
        return all(test.passed for test in self.tests)


@dataclass(frozen=True)
class Seen:
    """Canaries of one or more runs: their scores, which took part, and what each is about; [m]."""

    scores: Scores
    included: Included
    groups: Names

    def of(self, chosen: Included) -> Seen:
        """Return some of them."""
        return Seen(self.scores[chosen], self.included[chosen], self.groups[chosen])


def guess(scores: Scores, included: Included, fraction: float) -> Guesses:
    """Guess the highest scores in and the lowest out, `fraction` of all on each side."""
    count = len(scores)
    each = min(max(1, round(fraction * count)), count // 2)
    order = np.argsort(scores, kind="stable")
    right = int((~included[order[:each]]).sum() + included[order[count - each :]].sum())
    return Guesses(count, 2 * each, right)


def seen_of(hosts: Sequence[HostCanaries], scores: Scores) -> Seen:
    """Return one run's canaries with their scores, in the order of the hosts."""
    included = np.concatenate([host.included for host in hosts])
    return Seen(scores, included, np.concatenate([host.groups for host in hosts]))


def together(runs: Sequence[Seen]) -> Seen:
    """Return the canaries of several runs."""
    return Seen(
        np.concatenate([run.scores for run in runs]),
        np.concatenate([run.included for run in runs]),
        np.concatenate([run.groups for run in runs]),
    )


Bound = Callable[[tuple[Guesses, ...], float], float]
"""From guesses and significance to what epsilon is at least."""


def whole_curve(delta: float) -> Bound:
    """Return the bound on a Gaussian's whole trade-off curve, as epsilon at delta."""
    return lambda guesses, significance: epsilon_of(
        gaussian_lower_bound(guesses, significance), delta
    )


def one_point(delta: float) -> Bound:
    """Return the bound on epsilon at one delta; of the guesses of one run."""
    return lambda guesses, significance: epsilon_lower_bound(guesses[0], delta, significance)


def tests_of(parts: Sequence[Seen], claim: float, bound: Bound) -> tuple[CanaryTest, ...]:
    """Return all tests of one run's claim, by independent groups of runs."""
    blocks = sorted({name for part in parts for name in part.groups.tolist()} - {JOINT})
    alone = [part.of(part.groups != JOINT) for part in parts]
    tests = [_test_of(EVERY, alone, _GUESSED, _OF_ALL, claim, bound)]
    for name in blocks:
        own = [part.of(part.groups == name) for part in parts]
        share = _OF_BLOCKS / len(blocks)
        tests.append(_test_of(name, own, _GUESSED_IN_BLOCK, share, claim, bound))
    spread = [part.of(part.groups == JOINT) for part in parts]
    if all(len(part.scores) for part in spread):
        tests.append(_test_of(JOINT, spread, _GUESSED, _OF_SPREAD, claim, bound))
    return tuple(tests)


def pair_test(seen: Seen, claim: float, bound: Bound) -> CanaryTest:
    """Return the test of what two runs show together; the claim is of both."""
    return _test_of(TWO_RUNS, [seen], _GUESSED_IN_BLOCK, _OF_PAIR, claim, bound)


def _test_of(
    name: str,
    parts: Sequence[Seen],
    fraction: float,
    significance: float,
    claim: float,
    bound: Bound,
) -> CanaryTest:
    guesses = tuple(guess(part.scores, part.included, fraction) for part in parts)
    return CanaryTest(name, guesses, significance, claim, bound(guesses, significance))
