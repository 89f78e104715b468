"""The bound for several units together, against closed forms and plain numerical integration."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import binom, norm

from fedfuse_ray.errors import InputError
from fedfuse_ray.privacy.accounting.epsilon import epsilon
from fedfuse_ray.privacy.accounting.groups import group_epsilon
from fedfuse_ray.privacy.accounting.ledger import PrivacyEvent
from fedfuse_ray.privacy.mechanisms.integers import concentrated_terms, integer_scale

DELTA = 1e-5


def event(sigma, rate=1.0, count=1, **others):
    return PrivacyEvent(
        1, "a", (), others.pop("mechanism", "gaussian"), sigma, rate, count, **others
    )


@pytest.mark.parametrize(("rate", "count"), [(1.0, 40), (0.1, 30)])
def test_a_group_of_one_is_a_unit(rate, count):
    events = [event(4.0, rate, count)]
    assert group_epsilon([(events, 1)], DELTA) == pytest.approx(epsilon(events, DELTA), rel=1e-6)


@pytest.mark.parametrize("size", [1.5, 2, 4])
def test_of_full_batches_a_group_has_exactly_the_noise_over_its_size(size):
    found = group_epsilon([([event(23.6, count=40)], size)], DELTA)
    assert found == pytest.approx(epsilon([event(23.6 / size, count=40)], DELTA), rel=1e-9)


@pytest.mark.parametrize("size", [2, 3])
def test_sampled_members_are_a_mixture_of_gaussians(size):
    sigma, rate = 1.5, 0.2

    def delta_at(eps):
        x = np.linspace(-12 * sigma, size + 12 * sigma, 400_001)
        chances = binom.pmf(np.arange(size + 1), size, rate)
        with_them = sum(p * norm.pdf(x, j, sigma) for j, p in enumerate(chances))
        without = norm.pdf(x, 0, sigma)
        gaps = (with_them - np.exp(eps) * without, without - np.exp(eps) * with_them)
        return max(np.trapezoid(np.maximum(gap, 0.0), x) for gap in gaps)

    exact = brentq(lambda eps: delta_at(eps) - DELTA, 0.0, 40.0)
    found = group_epsilon([([event(sigma, rate)], size)], DELTA)
    assert exact <= found <= exact * 1.02
    # Neither of two shortcuts would do: as if all were sampled together, or each paid for itself.
    assert found > epsilon([event(sigma, rate)], DELTA)
    assert found < epsilon([event(sigma / size)], DELTA)


def test_institutions_with_noise_of_their_own_compose():
    one, other = [event(5.0, count=3)], [event(8.0)]
    joint = [event(5.0, count=3), event(4.0)]
    assert group_epsilon([(one, 1), (other, 2)], DELTA) == pytest.approx(epsilon(joint, DELTA))
    assert group_epsilon([], DELTA) == 0.0


def test_discrete_releases_have_the_general_bound():
    events = [event(1.0, mechanism="skellam", rho=0.01, xi=0.0)]
    found = group_epsilon([(events, 3)], DELTA)
    alone = epsilon(events, DELTA)
    # At least that of a mechanism of three times the sensitivity, for which nine times rho holds.
    tight = epsilon([event(1.0, mechanism="skellam", rho=0.09, xi=0.0)], DELTA)
    assert 3 * alone < found
    assert tight <= found < 1.5 * tight
    with pytest.raises(InputError, match="joint sums"):
        group_epsilon([(events, 1), (events, 1)], DELTA)


@pytest.mark.parametrize("mechanism", ["skellam", "discrete-gaussian"])
def test_parts_at_several_institutions_cost_their_square(mechanism):
    scale = integer_scale(0.5, 1000)
    one = concentrated_terms(mechanism, 20.0, scale, shares=3)
    three = concentrated_terms(mechanism, 20.0, scale, shares=3, parts=3)
    assert three[0] == pytest.approx(9 * one[0], rel=1e-2)
    assert three[0] >= 9 * one[0] * (1 - 1e-12)
    assert three[1] >= one[1]


def test_an_empty_group_is_refused():
    with pytest.raises(InputError, match="at least one member"):
        group_epsilon([([event(1.0)], 0)], DELTA)
