"""Splits and owners for collections that name neither."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedfuse_ray.errors import InputError

Indices = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]

TEST, VALIDATION = 0.15, 0.15


def draw_shares(
    classes: int, institutions: int, alpha: float | None, generator: np.random.Generator
) -> Shares:
    """Return each institution's share of each class, [classes, institutions], rows summing to 1.

    Each class is drawn from a Dirichlet of concentration `alpha`; null is even.

    Raises:
        InputError: `institutions` or `alpha` is not positive.
    """
    if institutions < 1:
        raise InputError("institutions", institutions, "must be 1 or more")
    if alpha is None:
        return np.full((classes, institutions), 1 / institutions)
    if not 0 < alpha < np.inf:
        raise InputError("label_alpha", alpha, "must be above 0; leave it out for IID")
    return generator.dirichlet(np.full(institutions, alpha), classes)


def deal(labels: Indices, shares: Shares, generator: np.random.Generator) -> Indices:
    """Return the institutions of specimens with labels [N], so that `shares` of each class hold.

    The generator decides who gets which specimen, and whom rounding favours.
    """
    owner = np.zeros(len(labels), np.int64)
    for label, share in enumerate(shares):
        rows = generator.permutation(np.flatnonzero(labels == label))
        order = generator.permutation(len(share))
        ends = np.round(np.cumsum(share[order]) * len(rows))
        ends[-1] = len(rows)
        owner[rows] = order[np.searchsorted(ends, np.arange(len(rows)), "right")]
    return owner


def fill_empty(owner: Indices, institutions: int, source: str) -> Indices:
    """Give every institution that got nothing one specimen of the largest.

    Raises:
        InputError: There are fewer specimens than institutions.
    """
    if len(owner) < institutions:
        remedy = f"{source} has {len(owner)} train specimens; ask for at most as many institutions"
        raise InputError("institutions", institutions, remedy)
    filled = owner.copy()
    for institution in range(institutions):
        counts = np.bincount(filled, minlength=institutions)
        if counts[institution] == 0:
            filled[np.flatnonzero(filled == counts.argmax())[0]] = institution
    return filled


def draw_splits(strata: Sequence[str], generator: np.random.Generator) -> npt.NDArray[np.str_]:
    """Return each specimen's split, 70/15/15 within each stratum; two or more give one to test."""
    names = np.array(strata)
    split = np.full(len(strata), "train", dtype="<U10")
    for stratum in sorted(set(strata)):
        rows = generator.permutation(np.flatnonzero(names == stratum))
        test = round(TEST * len(rows)) or int(len(rows) > 1)
        split[rows[:test]] = "test"
        split[rows[test : test + round(VALIDATION * len(rows))]] = "validation"
    return split
