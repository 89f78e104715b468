"""The canary audit: how much privacy the releases lost at least, with 95% confidence.

The run's noise and sums are played anew, several times, with canaries and noise of their own each
time. The attack scores each canary by its log-likelihood ratio under the claimed noise, guesses
that the highest took part and the lowest did not, and abstains on the rest.

Two bounds, of which the terms choose one beforehand:

- Full batches of Gaussian noise are one Gaussian release: its whole trade-off curve is tested
  (`tradeoff.py`), by four groups of runs that have to agree.
- Sampled records: one point (epsilon, delta) is tested, by one run (`bound.py`).

Sources: Steinke, Nasr and Jagielski, 2023, arXiv 2305.08846, algorithm 1; Mahloujifar, Melis and
Chaudhuri, 2024, arXiv 2410.22235.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fedfuse_ray import rng
from fedfuse_ray.audit.attacks.canaries import JOINT, HostCanaries, capacity, draw_canaries
from fedfuse_ray.audit.attacks.canary.scores import joint_scores, scores
from fedfuse_ray.audit.attacks.canary.verdicts import (
    CanaryAudit,
    Seen,
    one_point,
    pair_test,
    seen_of,
    tests_of,
    together,
    whole_curve,
)
from fedfuse_ray.audit.attacks.releases import reseeded
from fedfuse_ray.audit.attacks.tradeoff import mu_of
from fedfuse_ray.data.index import DatasetIndex
from fedfuse_ray.federation.plan.charges import training_events
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.plan.terms import PrivacyTerms
from fedfuse_ray.privacy.accounting.epsilon import epsilon_by_institution, largest

_GROUPS = 4
"""Of runs that have to agree, where the whole trade-off curve is tested."""

_LONGEST = 8
"""How many times as long as in the model a block may be, to hold more canaries."""

_MOST_SAMPLED = 5000
"""Canaries under sampling, where each of them costs delta."""

_MOST_INSTITUTIONS = 30_000
"""Canaries where each is a whole update."""

_MOST_SHARING, _SHARING_SAMPLED, _BLUR = 8, 2, 0.6
"""How many canaries may share a coordinate, and how much variance they may add to the noise's."""

_OTHER_BUDGET = 1.5
"""The noise of the second of two runs, over the first's."""

_ROUNDS_OF_PAIR = 5
"""Of two runs; noise in common shows in any."""


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

    def one_run(self, sizes: Mapping[str, int], run: int) -> Seen:
        """Return what one run shows."""
        hosts = self.hosts(sizes, run)
        return seen_of(hosts, scores(self.fresh(run), hosts, sizes, self.rounds))

    def two_runs(self, sizes: Mapping[str, int], run: int) -> tuple[Seen, float]:
        """Return what two runs of one seed show together, and the epsilon of both ledgers.

        Their first rounds, with blocks as long as they are.
        """
        hosts, first = self.hosts(sizes, run), self.fresh(run)
        rounds = min(self.rounds, _ROUNDS_OF_PAIR)
        pair, config = (first, _other_budget(first, self.index)), self.plan.terms.config
        events = [event for plan in pair for event in training_events(plan, range(1, rounds + 1))]
        claim = largest(epsilon_by_institution(events, config.delta, config.accountant))
        seen = seen_of(hosts, joint_scores(pair, hosts, sizes, rounds))
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
    wanted = min(canaries, _MOST_INSTITUTIONS if terms.whole_updates else canaries)
    groups = count = times = 1
    sharing = _SHARING_SAMPLED
    if exact:
        groups, sharing = _GROUPS, _sharing(epsilon, delta)
        # Longer blocks are cheaper than more runs, and noise and clip don't ask how long they are.
        places = capacity(sizes, sharing)
        times = max(1, min(_LONGEST, round(wanted / groups / places)))
        count = groups * max(1, round(wanted / groups / (times * places)))
    else:
        wanted = min(wanted, _MOST_SAMPLED)
    stage = _Stage(plan, index, rounds, seed, max(1, wanted // count), sharing)
    longer = {block: times * size for block, size in sizes.items()}
    runs = [stage.one_run(longer, run) for run in range(count)]
    parts = [together(runs[first::groups]) for first in range(groups)]
    bound = whole_curve(delta) if exact else one_point(delta)
    pair, double = stage.two_runs(sizes, count)
    tests = (*tests_of(parts, epsilon, bound), pair_test(pair, double, bound))
    kind = "f-DP" if exact else "(epsilon, delta)-DP"
    return CanaryAudit(epsilon, delta, rounds, terms.config.protected_unit, kind, tests)


def _is_gaussian(terms: PrivacyTerms) -> bool:
    """Whether all that a run releases is as one Gaussian release: every batch is full.

    Integer noise counts as the Gaussian of its size, which is less than its ledger charges.
    """
    return all(release.sampling_rate >= 1.0 for release in terms.releases.values())


def _sharing(epsilon: float, delta: float) -> int:
    """Return how many canaries may share a coordinate, before they blur each other.

    Each adds mu^2 / 4 to the noise's variance of 1; together they may add a seventh.
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
