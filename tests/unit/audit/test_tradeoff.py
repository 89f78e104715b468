"""The bound on a whole trade-off curve: against its published form, and on ideal mechanisms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from fedfuse_ray.audit.attacks.bound import Guesses, epsilon_lower_bound
from fedfuse_ray.audit.attacks.canary.verdicts import guess
from fedfuse_ray.audit.attacks.tradeoff import (
    epsilon_of,
    gaussian_lower_bound,
    mu_of,
    refuted,
)
from fedfuse_ray.errors import InputError

DELTA = 1e-5


def published(m, guessed, right, mu, threshold):
    """Mahloujifar, Melis and Chaudhuri, 2024, algorithm 3 with k = 2: whether mu is refuted."""
    r, h = threshold * right / m, threshold * (guessed - right) / m
    for i in range(right - 1, -1, -1):
        new = max(h, stats.norm.cdf(stats.norm.ppf(min(r, 1.0)) - mu))
        r, h = r + i / (guessed - i) * (new - h), new
    return r + h > guessed / m


@pytest.mark.parametrize(
    ("m", "guessed", "right"), [(1000, 800, 500), (1000, 60, 55), (5000, 300, 190), (40, 40, 40)]
)
@pytest.mark.parametrize("significance", [0.05, 0.4])
def test_it_is_the_published_algorithm(m, guessed, right, significance):
    claims = np.array([0.05, 0.2, 0.268, 0.5, 1.0, 2.0])
    found = refuted(Guesses(m, guessed, right), claims, np.full(len(claims), significance))
    assert list(found) == [published(m, guessed, right, mu, significance) for mu in claims]


def test_it_is_nearly_as_tight_as_its_authors_say():
    """Table 1: sigma = 2 and 10^5 canaries, of an epsilon of 1.99; theirs 1.59, (e, d) 1.33."""
    mu, t = 0.5, 2.4
    right, wrong = stats.norm.sf(t - mu / 2), stats.norm.sf(t + mu / 2)
    guessed = round(1e5 * (right + wrong))
    guesses = Guesses(100_000, guessed, round(guessed * right / (right + wrong)))
    bound = epsilon_of(gaussian_lower_bound([guesses], 0.05), DELTA)
    assert epsilon_lower_bound(guesses, DELTA, 0.05) < 1.4 < bound < 1.6
    # The same canaries in three runs that have to agree prove more.
    third = Guesses(33_333, guesses.guessed // 3, guesses.correct // 3)
    assert bound < epsilon_of(gaussian_lower_bound([third] * 3, 0.05), DELTA) < 1.99


def played(mu, generator, m=600, fraction=0.1):
    """Return the guesses of one ideal Gaussian run."""
    included = generator.random(m) < 0.5
    return guess(mu * included + generator.standard_normal(m), included, fraction)


def test_an_ideal_gaussian_is_rarely_refuted():
    generator = np.random.default_rng(0)
    found = [
        gaussian_lower_bound([played(0.8, generator) for _ in range(3)], 0.3) for _ in range(100)
    ]
    assert sum(bound > 0.8 for bound in found) <= 30 + 3 * math.sqrt(100 * 0.3 * 0.7)
    assert np.median(found) > 0.4
    # Negative control: with noise / 1.8 most runs are.
    louder = [
        gaussian_lower_bound([played(1.8 * 0.8, generator) for _ in range(3)], 0.3)
        for _ in range(40)
    ]
    assert np.mean([bound > 0.8 for bound in louder]) > 0.6


def all_together(mu, generator, m=200, caught=0.3):
    """Return the guesses of the worst mu-GDP mechanism: it gives all canaries away, or none.

    With probability `caught` all guesses are right with one and the same large probability.
    """
    wrong = 0.5
    low, high = 0.0, caught
    while high - low > 1e-12:
        wrong = (low + high) / 2
        total = wrong + stats.norm.cdf(stats.norm.ppf(wrong) + mu)
        low, high = (low, wrong) if total > caught else (wrong, high)
    sure = 1.0 - wrong / caught
    # What is left to the rest, which is guessed at random or worse.
    chance = sure if generator.random() < caught else 0.5
    return Guesses(m, m, int(generator.binomial(m, chance)))


def test_canaries_given_away_together_are_counted_as_one_event():
    """The bound holds whatever canaries have to do with each other; a binomial test would not."""
    generator, mu, significance = np.random.default_rng(1), 0.5, 0.3
    found, naive = [], []
    for _ in range(300):
        guesses = all_together(mu, generator)
        found.append(gaussian_lower_bound([guesses], significance) > mu)
        limit = stats.binom.isf(significance, guesses.guessed, stats.norm.cdf(mu / 2))
        naive.append(guesses.correct > limit)
    spread = 3 * math.sqrt(significance * (1 - significance) / 300)
    assert np.mean(found) <= significance + spread
    assert np.mean(naive) > 0.2


def test_nothing_is_proved_by_chance_and_bad_input_is_refused():
    assert gaussian_lower_bound([Guesses(1000, 100, 50)], 0.05) == 0.0
    assert gaussian_lower_bound([Guesses(1000, 100, 0)], 0.05) == 0.0
    assert gaussian_lower_bound([Guesses(1000, 100, 100), Guesses(1000, 100, 50)], 0.05) == 0.0
    assert gaussian_lower_bound([Guesses(0, 0, 0)], 0.05) == 0.0
    assert epsilon_of(mu_of(1.0, DELTA), DELTA) == pytest.approx(1.0, rel=1e-6)
    for groups, significance in (([], 0.05), ([Guesses(10, 5, 5)], 0.0)):
        with pytest.raises(InputError, match="significance"):
            gaussian_lower_bound(groups, significance)
