"""The canary audit: how much privacy the releases lost at least, with 95% confidence.

The run's noise and sums are played anew, several times, with canaries and noise of their own each
time. The attack scores each canary by its log-likelihood ratio under the claimed noise, guesses
that the highest took part and the lowest did not, and abstains on the rest.

Two bounds, of which the terms choose one beforehand:

- Full batches of Gaussian noise are one Gaussian release: its whole trade-off curve is tested
  (`tradeoff.py`), by four groups of runs that have to
  agree.
- Sampled records: one point (epsilon, delta) is tested, by one run (`bound.py`).

The error probability is shared out over tests that are fixed beforehand: most of it for the
canaries of all blocks together, the rest for those of each block, for those spread over blocks, and
for a second run of the same seed on another budget, so that a fault in one small block, or noise
that two runs share, does not drown. Sources: Steinke, Nasr and Jagielski, 2023, arXiv 2305.08846,
algorithm 1; Mahloujifar, Melis and Chaudhuri, 2024, arXiv 2410.22235.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fedfuse_ray import rng
from fedfuse_ray.audit.attacks.bound import Guesses, epsilon_lower_bound
from fedfuse_ray.audit.attacks.canaries import JOINT, HostCanaries, capacity, draw_canaries
from fedfuse_ray.audit.attacks.releases import reseeded
from fedfuse_ray.audit.attacks.scores import joint_scores, scores
from fedfuse_ray.audit.attacks.tradeoff import epsilon_of, gaussian_lower_bound, mu_of
from fedfuse_ray.data.index import DatasetIndex
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.plan.terms import PrivacyTerms
from fedfuse_ray.privacy.accounting.epsilon import epsilon_by_institution, largest
from fedfuse_ray.privacy.accounting.ledger import PrivacyEvent

EVERY = "all blocks"
"""Group of all canaries that lie in a single block."""

TWO_RUNS = "two runs"
"""Group of the canaries that are seen by two runs of one seed with different budgets."""

SIGNIFICANCE = 0.05

# What each test may err with: all blocks, the spread canaries, two runs, and every block together.
_OF_ALL, _OF_SPREAD, _OF_PAIR, _OF_BLOCKS = 0.041, 0.004, 0.001, 0.004

# On each side, of all canaries and of one block's. Few and sure guesses prove most about all; a
# block without noise gives a quarter away on each side where two canaries share a coordinate.
_GUESSED, _GUESSED_IN_BLOCK = 0.025, 0.18

_GROUPS = 4
"""Of runs that have to agree, where the whole trade-off curve is tested."""

_LONGEST = 8
"""How many times as long as in the model a block may be, to hold more canaries."""

_MOST_SAMPLED = 5000
"""Canaries under sampling, where each of them costs delta."""

_MOST_INSTITUTIONS = 30_000
"""Canaries where each is a whole update."""

_MOST_SHARING, _BLUR = 4, 0.3
_OTHER_BUDGET = 1.5
"""The noise of the second of two runs, over the first's."""

_ROUNDS_OF_PAIR = 5
"""Of two runs; noise in common shows in any."""

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
class _Seen:
    """Canaries of one or more runs: their scores, which took part, and what each is about."""

    scores: Scores
    included: Included
    groups: Names

    def of(self, chosen: Included) -> _Seen:
        return _Seen(self.scores[chosen], self.included[chosen], self.groups[chosen])


@dataclass(frozen=True)
class _Stage:
    """What every run of an audit has in common; each draws canaries and noise of its own."""

    plan: Plan
    index: DatasetIndex
    rounds: int
    seed: int
    canaries: int
    sharing: int

    def fresh(self, run: int) -> Plan:
        """Return the plan under the noise of one run."""
        return reseeded(self.plan, rng.derive(self.seed, "canary noise", run) >> 1, self.index)

    def hosts(self, sizes: Mapping[str, int], run: int) -> list[HostCanaries]:
        """Draw one run's canaries."""
        generator = rng.generator(self.seed, "canaries", run)
        terms = self.plan.terms
        return draw_canaries(self.plan, terms, sizes, self.canaries, generator, self.sharing)

    def one_run(self, sizes: Mapping[str, int], run: int) -> _Seen:
        """Return what one run shows."""
        hosts = self.hosts(sizes, run)
        return _seen(hosts, scores(self.fresh(run), hosts, sizes, self.rounds))

    def two_runs(self, sizes: Mapping[str, int], run: int) -> tuple[_Seen, float]:
        """Return what two runs of one seed show together, and the epsilon of both ledgers.

        Their first rounds, with blocks as long as they are.
        """
        hosts, first, rounds = (
            self.hosts(sizes, run),
            self.fresh(run),
            min(self.rounds, _ROUNDS_OF_PAIR),
        )
        pair, config = (first, _other_budget(first, self.index)), self.plan.terms.config
        events = [event for plan in pair for event in _events(plan, rounds)]
        claim = largest(epsilon_by_institution(events, config.delta, config.accountant))
        seen = _seen(hosts, joint_scores(pair, hosts, sizes, rounds))
        return seen.of(seen.groups != JOINT), claim


def audit_canaries(
    plan: Plan,
    sizes: Mapping[str, int],
    index: DatasetIndex,
    *,
    epsilon: float,
    rounds: int,
    canaries: int,
    seed: int,
) -> CanaryAudit:
    """Audit the releases of a plan with privacy terms against the epsilon that its ledger claims.

    Args:
        plan: The federation's plan.
        sizes: How many numbers of each block are clipped and summed.
        index: The data's index, which the noise depends on.
        epsilon: The ledger's.
        rounds: That a run releases.
        canaries: m, over all runs together; fewer under sampling, and of institutions.
        seed: Draws canaries, inclusions and noise anew.

    Raises:
        InputError: A privacy mode, or a model, that canaries can't audit.
    """
    terms, delta = plan.terms, plan.terms.config.delta
    exact = _is_gaussian(terms)
    most = _MOST_INSTITUTIONS if terms.whole_updates else canaries
    if exact:
        sharing, wanted = _sharing(epsilon, delta), min(canaries, most)
        # Longer blocks are cheaper than more runs, and noise and clip don't ask how long they are.
        times = max(1, min(_LONGEST, round(wanted / _GROUPS / capacity(sizes, sharing))))
        groups = _GROUPS
        count = groups * max(1, round(wanted / groups / (times * capacity(sizes, sharing))))
        each = wanted // count
    else:
        groups, count, sharing, times = 1, 1, 2, 1
        each = min(canaries, most, _MOST_SAMPLED)
    stage = _Stage(plan, index, rounds, seed, each, sharing)
    longer = {block: times * size for block, size in sizes.items()}
    runs = [stage.one_run(longer, run) for run in range(count)]
    parts = [_together(runs[first::groups]) for first in range(groups)]
    bound = _gaussian(delta) if exact else _approximate(delta)
    pair, double = stage.two_runs(sizes, count)
    tests = (
        *_tests(parts, epsilon, bound),
        _test(TWO_RUNS, [pair], _GUESSED_IN_BLOCK, _OF_PAIR, double, bound),
    )
    kind = "f-DP" if exact else "(epsilon, delta)-DP"
    return CanaryAudit(epsilon, delta, rounds, terms.config.unit, kind, tests)


def guess(scores: Scores, included: Included, fraction: float) -> Guesses:
    """Guess the highest scores in and the lowest out, `fraction` of all on each side."""
    count = len(scores)
    each = min(max(1, round(fraction * count)), count // 2)
    order = np.argsort(scores, kind="stable")
    right = int((~included[order[:each]]).sum() + included[order[count - each :]].sum())
    return Guesses(count, 2 * each, right)


def _is_gaussian(terms: PrivacyTerms) -> bool:
    """Whether all that a run releases is as one Gaussian release: every batch is full.

    Integer noise counts as the Gaussian of its size, which is less than its ledger charges.
    """
    return all(release.sampling_rate >= 1.0 for release in terms.releases.values())


def _sharing(epsilon: float, delta: float) -> int:
    """Return how many canaries may share a coordinate, before they blur each other.

    Each adds mu^2 / 4 to the noise's variance of 1.
    """
    return max(1, min(_MOST_SHARING, int(_BLUR / mu_of(epsilon, delta) ** 2)))


def _other_budget(plan: Plan, index: DatasetIndex) -> Plan:
    """Return the same run, of the same seed, with more noise."""
    releases = {
        name: replace(release, noise_multiplier=_OTHER_BUDGET * release.noise_multiplier)
        for name, release in plan.terms.releases.items()
    }
    other = replace(plan, privacy=replace(plan.terms, releases=releases))
    return reseeded(other, plan.experiment.seed, index)


def _events(plan: Plan, rounds: int) -> list[PrivacyEvent]:
    return [
        event
        for participant in plan.participants
        for number in range(1, rounds + 1)
        for event in plan.terms.events(participant.name, plan.blocks_of(participant), number)
    ]


def _seen(hosts: Sequence[HostCanaries], scores: Scores) -> _Seen:
    included = np.concatenate([host.included for host in hosts])
    return _Seen(scores, included, np.concatenate([host.groups for host in hosts]))


def _together(runs: Sequence[_Seen]) -> _Seen:
    return _Seen(
        np.concatenate([run.scores for run in runs]),
        np.concatenate([run.included for run in runs]),
        np.concatenate([run.groups for run in runs]),
    )


Bound = Callable[[tuple[Guesses, ...], float], float]
"""From guesses and significance to what epsilon is at least."""


def _gaussian(delta: float) -> Bound:
    return lambda guesses, significance: epsilon_of(
        gaussian_lower_bound(guesses, significance), delta
    )


def _approximate(delta: float) -> Bound:
    return lambda guesses, significance: epsilon_lower_bound(guesses[0], delta, significance)


def _tests(parts: Sequence[_Seen], claim: float, bound: Bound) -> tuple[CanaryTest, ...]:
    blocks = sorted({name for part in parts for name in part.groups.tolist()} - {JOINT})
    alone = [part.of(part.groups != JOINT) for part in parts]
    tests = [_test(EVERY, alone, _GUESSED, _OF_ALL, claim, bound)]
    for name in blocks:
        own = [part.of(part.groups == name) for part in parts]
        share = _OF_BLOCKS / len(blocks)
        tests.append(_test(name, own, _GUESSED_IN_BLOCK, share, claim, bound))
    spread = [part.of(part.groups == JOINT) for part in parts]
    if all(len(part.scores) for part in spread):
        tests.append(_test(JOINT, spread, _GUESSED, _OF_SPREAD, claim, bound))
    return tuple(tests)


def _test(
    name: str,
    parts: Sequence[_Seen],
    fraction: float,
    significance: float,
    claim: float,
    bound: Bound,
) -> CanaryTest:
    guesses = tuple(guess(part.scores, part.included, fraction) for part in parts)
    return CanaryTest(name, guesses, significance, claim, bound(guesses, significance))
