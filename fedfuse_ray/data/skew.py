"""How institutions' data differ: labels, quantity, time and missing images, each a knob alone.

Feature skew is the instruments': see `fedfuse_ray.data.phantoms.scanner`. Label and quantity skew
by a Dirichlet distribution follow Hsu, Qi and Brown 2019 (arXiv:1909.06335).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedfuse_ray.config.settings.data import SplitConfig

Counts = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float64]

# numpy's sampler loses the last mass below about 1e-300; nobody can tell this from 0.
_LEAST_ALPHA = 1e-6


def largest_remainder(total: int, weights: Sequence[float] | Weights, minimum: int = 0) -> Counts:
    """Share `total` things in proportion to `weights`, in whole numbers that add up to it exactly.

    Quotas are rounded down and what is left goes to the largest remainders, ties to the first. Who
    is then below `minimum` is given the difference by whoever has most.

    Args:
        total: Non-negative, at least `minimum` times the number of weights.
        weights: Non-negative, with a positive sum.
        minimum: The least that anyone gets.

    Raises:
        ValueError: The total can't give everyone the minimum.

    >>> largest_remainder(10, (2, 1, 1)).tolist()
    [5, 3, 2]
    """
    share = np.asarray(weights, np.float64)
    if total < minimum * len(share):
        raise ValueError(f"{total} can't give {minimum} to each of {len(share)}")
    # Nine decimals make ties of quotas that differ by rounding alone, as 0.15 * 12,450 does.
    quota = np.round(total * (share / share.sum()), 9)
    counts: Counts = np.floor(quota).astype(np.int64)
    order = np.argsort(np.floor(quota) - quota, kind="stable")
    counts[order[: total - int(counts.sum())]] += 1
    short = np.maximum(minimum - counts, 0)
    counts += short
    for _ in range(int(short.sum())):
        counts[np.argmax(counts)] -= 1
    return counts


def split_counts(specimens: int, split: SplitConfig) -> tuple[int, int, int]:
    """Return the numbers of train, validation and test specimens; they add up to `specimens`.

    Halves go to validation before test: 12,450 at 70/15/15 are 8,715, 1,868 and 1,867.

    >>> split_counts(12_450, SplitConfig(train=0.7, validation=0.15, test=0.15))
    (8715, 1868, 1867)
    """
    parts = largest_remainder(specimens, (split.train, split.validation, split.test))
    train, validation, test = (int(part) for part in parts)
    return train, validation, test


def institution_weights(
    shares: Sequence[float], alpha: float | None, rng: np.random.Generator
) -> Weights:
    """Return each institution's part of its domain: its share, times a Dirichlet when `alpha`."""
    weights = np.asarray(shares, np.float64)
    if alpha is not None:
        skewed = weights * _dirichlet(alpha, len(weights), rng)
        weights = skewed if skewed.sum() > 0.0 else weights
    parts: Weights = weights / weights.sum()
    return parts


def class_proportions(classes: int, alpha: float | None, rng: np.random.Generator) -> Weights:
    """Return an institution's class proportions: equal, or a Dirichlet of concentration `alpha`."""
    if alpha is None:
        return np.full(classes, 1.0 / classes)
    return _dirichlet(alpha, classes, rng)


def draw_labels(count: int, proportions: Weights, rng: np.random.Generator) -> Counts:
    """Draw `count` labels in random order, each class within one of its expected number.

    Systematic sampling: equally spaced points with one random start fall into the classes'
    intervals, laid out in random order so that no class is favoured when `count` is small.
    """
    order = rng.permutation(len(proportions))
    edges = np.cumsum(proportions[order])
    points = (np.arange(count) + rng.random()) / max(count, 1) * edges[-1]
    # A class of zero width holds no point: `right` skips edges that equal one.
    place = np.minimum(np.searchsorted(edges, points, side="right"), len(order) - 1)
    labels: Counts = order[place].astype(np.int64)
    return rng.permutation(labels)


def acquisition_times(
    count: int, rng: np.random.Generator, start: float = 0.0, end: float = 1.0
) -> npt.NDArray[np.float32]:
    """Return times in order of acquisition, float32 [count], spread evenly over [start, end]."""
    step = (np.arange(count) + rng.random(count)) / max(count, 1)
    return (start + (end - start) * step).astype(np.float32)


def draw_presence(
    count: int, modalities: int, missing_rate: float, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Draw which images there are, bool [count, modalities]; every row keeps at least one.

    Each is missing with probability `missing_rate`; of a row that lost all, one at random stays.
    """
    present = rng.random((count, modalities)) >= missing_rate
    kept = rng.integers(0, modalities, count)
    empty = ~present.any(axis=1)
    present[empty, kept[empty]] = True
    return present


def _dirichlet(alpha: float, size: int, rng: np.random.Generator) -> Weights:
    return rng.dirichlet(np.full(size, max(alpha, _LEAST_ALPHA)))
