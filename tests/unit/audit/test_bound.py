from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from fedfuse_ray.audit.attacks.bound import Guesses, epsilon_lower_bound, p_value
from fedfuse_ray.errors import InputError


def test_the_published_example():
    # Steinke, Nasr and Jagielski, 2023, appendix D.
    assert epsilon_lower_bound(Guesses(1000, 100, 75), 1e-4, 0.05) == pytest.approx(0.673, abs=1e-3)


@pytest.mark.parametrize(("m", "r", "v"), [(200, 100, 60), (200, 200, 0), (50, 10, 10)])
@pytest.mark.parametrize(("epsilon", "delta"), [(0.0, 0.0), (0.5, 1e-5), (3.0, 1e-3)])
def test_p_value_is_the_papers(m, r, v, epsilon, delta):
    q = 1 / (1 + math.exp(-epsilon))
    alpha, below = 0.0, 0.0
    for i in range(1, v + 1):
        below += stats.binom.pmf(v - i, r, q)
        alpha = max(alpha, below / i)
    expected = min(1.0, stats.binom.sf(v - 1, r, q) + 2 * m * delta * alpha)
    assert p_value(Guesses(m, r, v), epsilon, delta) == pytest.approx(expected, rel=1e-9)


def test_guessing_at_random_proves_nothing():
    assert epsilon_lower_bound(Guesses(1000, 100, 50), 1e-5, 0.05) == 0.0
    assert epsilon_lower_bound(Guesses(10, 0, 0), 1e-5, 0.05) == 0.0


def test_more_correct_guesses_prove_more_and_delta_costs():
    bounds = [epsilon_lower_bound(Guesses(1000, 200, v), 1e-5, 0.05) for v in (120, 150, 199)]
    assert 0 < bounds[0] < bounds[1] < bounds[2]
    assert epsilon_lower_bound(Guesses(1000, 200, 150), 1e-3, 0.05) < bounds[1]


def test_the_bound_holds_for_randomised_response():
    """The worst mechanism of a given epsilon is refuted at most 5% of the time."""
    generator = np.random.default_rng(0)
    correct = generator.binomial(100, 1 / (1 + math.exp(-1.0)), 400)
    too_high = [epsilon_lower_bound(Guesses(100, 100, int(v)), 0.0, 0.05) > 1.0 for v in correct]
    assert 0 < sum(too_high) <= 0.05 * 400 + 3 * math.sqrt(400 * 0.05 * 0.95)


def test_impossible_guesses_are_refused():
    with pytest.raises(InputError, match="guesses"):
        Guesses(10, 5, 6)
    with pytest.raises(InputError, match="significance"):
        epsilon_lower_bound(Guesses(10, 5, 5), 1e-5, 0.0)
