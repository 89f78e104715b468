from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedfuse_ray.config.settings.data import SplitConfig
from fedfuse_ray.data import skew
from fedfuse_ray.rng import generator

weights = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=20)
seeds = st.integers(0, 2**32)


@given(st.integers(0, 10_000), weights, st.integers(0, 3))
def test_largest_remainder_gives_exactly_the_total(total, shares, minimum):
    if total < minimum * len(shares):
        with pytest.raises(ValueError, match="can't give"):
            skew.largest_remainder(total, shares, minimum)
        return
    counts = skew.largest_remainder(total, shares, minimum)
    assert counts.sum() == total
    assert counts.min() >= minimum


@given(st.integers(0, 10_000), weights)
def test_largest_remainder_stays_within_one_of_the_quota(total, shares):
    quota = total * np.asarray(shares) / np.sum(shares)
    assert np.all(np.abs(skew.largest_remainder(total, shares) - quota) < 1.0 + 1e-6)


def test_the_papers_splits():
    split = SplitConfig()
    counts = [skew.split_counts(n, split) for n in (12_450, 18_920, 15_680)]
    assert counts == [(8715, 1868, 1867), (13_244, 2838, 2838), (10_976, 2352, 2352)]


@given(st.integers(0, 500), st.integers(2, 8), st.floats(1e-3, 100), seeds)
def test_labels_follow_the_proportions_within_one(count, classes, alpha, seed):
    rng = generator(seed, "test")
    proportions = skew.class_proportions(classes, alpha, rng)
    labels = skew.draw_labels(count, proportions, rng)
    found = np.bincount(labels, minlength=classes)
    assert len(labels) == count
    assert len(found) == classes
    assert np.all(np.abs(found - count * proportions) < 1.0 + 1e-6)


@given(st.integers(0, 300), st.integers(1, 6), st.floats(0.0, 0.99), seeds)
def test_every_specimen_keeps_an_image(count, modalities, rate, seed):
    present = skew.draw_presence(count, modalities, rate, generator(seed, "test"))
    assert present.shape == (count, modalities)
    assert present.any(axis=1).all()
    if rate == 0.0:
        assert present.all()


@given(st.integers(1, 300), st.floats(0.0, 0.5), st.floats(0.5, 1.0), seeds)
def test_times_are_in_order_and_in_range(count, start, end, seed):
    times = skew.acquisition_times(count, generator(seed, "test"), start, end)
    assert np.all(np.diff(times) >= 0)
    assert times.min() >= np.float32(start)
    assert times.max() <= np.float32(end) + 1e-6


@given(weights, st.floats(1e-3, 100), seeds)
def test_quantities_are_proportions(shares, alpha, seed):
    parts = skew.institution_weights(shares, alpha, generator(seed, "test"))
    assert np.all(parts >= 0)
    assert parts.sum() == pytest.approx(1.0)


def test_small_alpha_is_more_skewed_than_large():
    def largest(alpha: float) -> float:
        draws = [skew.class_proportions(6, alpha, generator(s, "test")) for s in range(200)]
        return float(np.mean([draw.max() for draw in draws]))

    assert largest(0.1) > 0.7
    assert largest(100.0) < 0.25


def test_no_alpha_is_no_skew():
    rng = generator(0, "test")
    assert skew.institution_weights([2, 1, 1], None, rng).tolist() == [0.5, 0.25, 0.25]
    labels = skew.draw_labels(60, skew.class_proportions(6, None, rng), rng)
    assert np.bincount(labels).tolist() == [10] * 6


def test_missing_images_are_missing_at_the_rate():
    present = skew.draw_presence(20_000, 3, 0.3, generator(0, "test"))
    # A row of three loses all with probability 0.027 and then gets one of three back.
    assert 1 - present.mean() == pytest.approx(0.3 - 0.027 / 3, abs=0.01)
