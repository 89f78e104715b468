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
            domain's test set. With noise in it, a count may be below zero.
        attention: For each view, the sum over specimens of the fusion's weights, and how many
            specimens that was: [M + 1].
        correct: Right answers on its own validation specimens, with its own modalities; 0 where
            that is private.
        total: How many those are; 0 where that is private.
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


def plausible(noisy: Counts, total: int | None = None) -> Counts:
    """Return counts that noise could have been added to, as near as need be.

    None is below zero, and the diagonal keeps its noisy sum, as far as it lies between 0 and the
    total. So the accuracy stays unbiased, which cutting each cell off at zero would not leave it.

    Args:
        noisy: Counts with noise, [true class, predicted class].
        total: Their true sum, where that is public; by default the noisy one.

    >>> plausible(np.array([[7, -2], [1, 1]]), 10)
    array([[7, 0],
           [2, 1]])
    """
    whole = max(0, int(noisy.sum()) if total is None else total)
    hits = min(max(0, int(np.trace(noisy))), whole)
    diagonal = np.eye(len(noisy), dtype=bool)
    counts = np.zeros_like(noisy)
    counts[diagonal] = _scaled(noisy[diagonal], hits)
    counts[~diagonal] = _scaled(noisy[~diagonal], whole - hits)
    return counts


def _scaled(noisy: Counts, total: int) -> Counts:
    """Return integers of a given sum, in proportion to what is above zero of some others."""
    shares = np.maximum(noisy, 0).astype(np.float64)
    if not len(noisy) or not shares.any():
        shares = np.ones(len(noisy))
    ends = np.rint(np.cumsum(shares) / shares.sum() * total).astype(np.int64)
    return np.diff(ends, prepend=0)


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
