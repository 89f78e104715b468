"""How large epsilon is at least, by how well members are told or records are found.

Successes are counted, so each rate is bounded with a confidence (Clopper and Pearson, 1934, doi
10.1093/biomet/26.4.404), and the bounds are put into the limits that (epsilon, delta)-DP sets:

- Membership: a true positive rate is at most e^epsilon FPR + delta (Kairouz et al., 2015, arXiv
  1311.0776, theorem 2.1).
- Finding a record among n that are equally likely: at most e^epsilon / n + delta. Without any of
  them, guesses of all n add up to 1, and adding one changes its guess by the guarantee.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from fedfuse_ray.audit.attacks.bound import binomial
from fedfuse_ray.audit.attacks.canary.verdicts import SIGNIFICANCE
from fedfuse_ray.audit.attacks.features import FeatureLeak
from fedfuse_ray.audit.attacks.membership import FALSE_POSITIVES, Membership

_HALVINGS = 30


def least_rate(successes: int, trials: int, significance: float) -> float:
    """Return the rate below which so many successes have a probability of `significance`."""
    low, high = 0.0, successes / trials
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        if binomial(trials, middle)[successes:].sum() > significance:
            high = middle
        else:
            low = middle
    return low


def from_membership(found: Sequence[Membership], delta: float) -> float:
    """Return what epsilon is at least by the best of some attacks on one model; 0 proves nothing.

    The threshold is the one at which the rates were taken, so the confidence is nominal.
    """
    share = SIGNIFICANCE / max(1, 2 * len(found))
    bounds = [0.0]
    for each in found:
        wrong = math.floor(FALSE_POSITIVES * each.others)
        false = 1.0 - least_rate(each.others - wrong, each.others, share)
        true = least_rate(round(each.tpr * each.members), each.members, share)
        bounds.append(_log((true - delta) / false))
    return max(bounds)


def from_reconstruction(found: Sequence[FeatureLeak], delta: float) -> float:
    """Return what epsilon is at least by how often records were found; 0 proves nothing."""
    bounds = [0.0]
    for each in found:
        hits = round(each.identified * each.records)
        rate = least_rate(hits, each.records, SIGNIFICANCE / len(found))
        bounds.append(_log((rate - delta) * (each.decoys + 1)))
    return max(bounds)


def _log(value: float) -> float:
    return math.log(value) if value > 1.0 else 0.0
