"""Noise on scores: of the size that is charged, in every cell, and fresh for every release.

Negative controls: noise of two thirds of the size, and noise that two releases share.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from fedfuse_ray.federation.institution.private_scores import noised
from fedfuse_ray.federation.institution.training import Prediction
from fedfuse_ray.federation.messages.metrics import accuracy, plausible
from fedfuse_ray.federation.plan.score_terms import ScoreTerms
from fedfuse_ray.privacy.randomness import derived

SIGMA, CLASSES = 4.0, 3
ONE, TWO = (("ct",),), (("ct",), ("mri",))
TERMS = ScoreTerms(private=True, held={"a": 30}, sigma=SIGMA, unit="record")


def counted(views, hits=10):
    counts = np.diag([hits, 9, 8])
    return {view: Prediction(counts, np.ones(3)) for view in views}


def noise_of(views, draws, hits=10):
    noisy = noised(counted(views, hits), TERMS, draws, "a")
    return np.stack([noisy[v].confusion - counted(views, hits)[v].confusion for v in views])


def fits(noise, std):
    """Whether rounded noise has a standard deviation, at one in a million."""
    statistic = np.sum(noise.astype(np.float64) ** 2) / (std**2 + 1 / 12)
    low, high = stats.chi2.interval(1 - 1e-6, noise.size)
    return low < statistic < high


@pytest.mark.parametrize("views", [ONE, TWO], ids=len)
def test_noise_has_the_size_that_is_charged(views):
    noise = np.stack([noise_of(views, derived(seed)) for seed in range(400)])
    assert abs(noise.mean()) < 6 * SIGMA * np.sqrt(len(views) / noise.size)
    std = SIGMA * np.sqrt(len(views))  # a record is in one cell of each view
    for cell in noise.reshape(400, -1).T:
        assert fits(cell, std)
    assert not fits(noise, 2 / 3 * std)
    assert not fits(noise, std / np.sqrt(2))


def test_releases_share_noise_only_if_they_are_the_same():
    draws = derived(0).given(b"weights")
    same = noised(counted(ONE), TERMS, draws, "a")["ct",].confusion
    assert np.array_equal(same, noised(counted(ONE), TERMS, draws, "a")["ct",].confusion)
    assert not np.array_equal(noise_of(ONE, draws), noise_of(ONE, draws, hits=11))
    assert not np.array_equal(noise_of(ONE, draws), noise_of(ONE, draws.given(b"others")))
    one, other = noise_of(TWO, draws)
    assert not np.array_equal(one, other)


def test_who_holds_nothing_adds_nothing_and_attention_is_left_out():
    released = noised(counted(ONE), TERMS, derived(0), "b")["ct",]
    assert np.array_equal(released.confusion, counted(ONE)["ct",].confusion)
    assert not released.attention.any()


def test_the_accuracy_that_is_shown_is_not_biased():
    draws = [derived(seed) for seed in range(2000)]
    shown = [
        accuracy(plausible(noised(counted(ONE), TERMS, d, "a")["ct",].confusion, 60)) for d in draws
    ]
    wide = 5 * np.std(shown) / np.sqrt(len(shown))
    assert abs(np.mean(shown) - 27 / 60) < wide
    cut = [np.maximum(noised(counted(ONE), TERMS, d, "a")["ct",].confusion, 0) for d in draws]
    assert abs(np.mean([accuracy(c) for c in cut]) - 27 / 60) > wide  # what cutting off would do


@given(
    arrays.arrays(np.int64, (3, 3), elements=st.integers(-50, 50)),
    st.one_of(st.none(), st.integers(0, 100)),
)
def test_plausible_counts_are_counts(noisy, total):
    counts = plausible(noisy, total)
    whole = max(0, noisy.sum()) if total is None else total
    assert counts.min() >= 0
    assert counts.sum() == whole
    assert np.trace(counts) == min(max(0, np.trace(noisy)), whole)
    if noisy.min() >= 0 and total in (None, noisy.sum()):
        assert np.array_equal(counts, noisy)
