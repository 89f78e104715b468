"""Scores from counts: integer confusion matrices add up in any order to the same result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
View = tuple[str, ...]
"""The modalities that the model is shown."""


@dataclass(frozen=True)
class Scores:
    """What one participant counted.

    Attributes:
        name: The participant.
        domain: Its domain.
        confusion: For each view, counts [true class, predicted class] over its part of the
            domain's test set.
        attention: For each view, the sum over specimens of the fusion's weights, and how many
            specimens that was: [M + 1].
        correct: Right answers on its own validation specimens, with its own modalities.
        total: How many those are.
    """

    name: str
    domain: str
    confusion: Mapping[View, Counts]
    attention: Mapping[View, npt.NDArray[np.float64]]
    correct: int
    total: int


def accuracy(confusion: Counts) -> float:
    """Return the fraction on the diagonal."""
    return float(np.trace(confusion) / max(1, confusion.sum()))


def macro_f1(confusion: Counts) -> float:
    """Return the unweighted mean of the classes' F1, without classes never seen nor predicted."""
    hits = np.diag(confusion).astype(np.float64)
    support = confusion.sum(axis=0) + confusion.sum(axis=1)
    seen = support > 0
    return float(np.mean(2 * hits[seen] / support[seen])) if seen.any() else 0.0


def sum_confusions(scores: Iterable[Scores]) -> dict[str, dict[View, Counts]]:
    """Add the participants' counts: domain, then view, to a confusion matrix."""
    total: dict[str, dict[View, Counts]] = {}
    for score in scores:
        views = total.setdefault(score.domain, {})
        for view, counts in score.confusion.items():
            views[view] = views[view] + counts if view in views else counts.copy()
    return total


def sum_attention(scores: Iterable[Scores]) -> dict[str, dict[View, npt.NDArray[np.float64]]]:
    """Mean attention over the test specimens: domain, then view, to [M] weights."""
    total: dict[str, dict[View, npt.NDArray[np.float64]]] = {}
    for score in scores:
        views = total.setdefault(score.domain, {})
        for view, sums in score.attention.items():
            views[view] = views[view] + sums if view in views else sums.copy()
    return {
        domain: {view: sums[:-1] / max(1.0, sums[-1]) for view, sums in views.items()}
        for domain, views in total.items()
    }


def mean_over_domains(per_domain: Mapping[str, float], test: Mapping[str, int]) -> float:
    """Pool the domains: the mean weighted by their numbers of test specimens."""
    total = sum(test[domain] for domain in per_domain)
    return sum(value * test[domain] for domain, value in per_domain.items()) / max(1, total)
