"""Gaussian noise rounded to integers, sampled exactly."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import chisquare

from fedfuse_ray.errors import InputError
from fedfuse_ray.privacy.mechanisms import exact
from fedfuse_ray.privacy.mechanisms.exact import rounded_normal

SIZE = 200_000


def law(centre, std, reach):
    edges = (np.arange(-reach, reach + 2) - 0.5 - centre) / std
    return np.diff(ndtr(edges))


def fits(sample, centre, std):
    """Whether a sample has the law of the rounded normal: chi-square at 1e-4."""
    reach = math.ceil(abs(centre) + 4 * std)
    chances = law(centre, std, reach)
    kept = chances * sample.size > 20
    counts = np.array([np.sum(sample == k) for k in np.arange(-reach, reach + 1)[kept]])
    observed = np.append(counts, sample.size - counts.sum())
    expected = np.append(chances[kept], 1 - chances[kept].sum()) * sample.size
    if expected[-1] < 20:
        observed, expected = observed[:-1], expected[:-1] * observed[:-1].sum()
        expected = expected / expected.sum() * observed.sum()
    return chisquare(observed, expected).pvalue > 1e-4


@pytest.mark.parametrize("std", [0.4, 1.0, 1.3, 7.0])
@pytest.mark.parametrize("centre", [0.0, 0.5, -3.3])
def test_integers_have_the_law_of_the_rounded_real_number(centre, std):
    draws = np.random.default_rng(1)
    sample = rounded_normal(np.full(SIZE, centre), std, draws)
    assert fits(sample, centre, std)
    # Negative controls: a spread off by 2%, and rounding towards zero.
    assert not fits(rounded_normal(np.full(SIZE, centre), 1.02 * std, draws), centre, std)
    assert not fits(np.trunc(centre + std * draws.standard_normal(SIZE)), centre, std)


def test_what_is_decided_on_more_bits_has_the_same_law(monkeypatch):
    monkeypatch.setattr(exact, "SURE", 1.0)
    assert fits(rounded_normal(np.full(4000, 0.3), 1.1, np.random.default_rng(2)), 0.3, 1.1)


def test_sure_decisions_are_the_exact_ones():
    draws = np.random.default_rng(3)
    words = np.frombuffer(draws.bytes(24 * 3000), dtype="<u8").reshape(3, -1)
    parts = draws.uniform(-0.5, 0.5, 3000)
    accepted, values = exact._attempt(words, parts, 1.3, draws)
    for i, part in enumerate(parts):
        decided = exact._exactly([int(w) << 192 for w in words[:, i]], float(part), 1.3)
        assert (accepted[i], values[i]) == decided


def test_an_undecided_number_is_decided_by_its_further_bits():
    tie = Fraction(1, 2)  # part + std * (0 + x) with x = 1/2 - a little, or and a little
    for more, expected in ((-1, 0), (1, 1)):
        x = int(tie * 2**255) + more
        _, value = exact._exactly([0, x, 0], 0.0, 1.0)
        assert value == expected
    table = exact._words()
    for k, threshold in enumerate(table[:4]):
        assert exact._exactly([int(threshold) << 192, 0, 0], 0.0, 1.0)[1] == k
        assert exact._exactly([(int(threshold) + 1) << 192, 0, 0], 0.0, 1.0)[1] == k + 1


def test_the_table_is_that_of_the_squares():
    weights = [math.exp(-k * k / 2) for k in range(12)]
    for k, threshold in enumerate(exact._thresholds(64)[:6]):
        assert threshold / 2**64 == pytest.approx(sum(weights[: k + 1]) / sum(weights), rel=1e-14)


def test_large_centres_keep_their_integers_and_equal_streams_their_noise():
    centres = np.array([0.25, 2.0**40 + 0.25, -(2.0**40) + 0.25])
    one, large, small = (
        rounded_normal(centres[i : i + 1], 3.0, np.random.default_rng(5)) for i in range(3)
    )
    assert large[0] - 2**40 == one[0] == small[0] + 2**40
    assert rounded_normal(np.zeros(0), 1.0, np.random.default_rng(5)).size == 0


@pytest.mark.parametrize("std", [0.0, -1.0, 2.0**31, math.nan])
def test_other_deviations_are_refused(std):
    with pytest.raises(InputError, match="noise"):
        rounded_normal(np.zeros(3), std, np.random.default_rng(0))
