from __future__ import annotations

import math

import numpy as np
import pytest

from fedfuse_ray.errors import InputError
from fedfuse_ray.privacy.mechanisms.adaptive_clipping import (
    AdaptiveClip,
    centred_count,
    gradient_noise_multiplier,
)
from fedfuse_ray.privacy.mechanisms.gaussian import (
    effective_tolerance,
    gaussian_noise,
    group_noise_stds,
    joint_noise_multiplier,
    realised_noise_multiplier,
    share_std,
)
from fedfuse_ray.privacy.mechanisms.integers import INTEGER_NOISE, concentrated_terms, integer_scale


def test_shares_of_the_owners_that_remain_make_the_whole_noise():
    for owners, tolerated in ((15, 0), (15, 3), (2, 1), (5, 4)):
        share = share_std(2.0 * 0.5, owners - effective_tolerance(owners, tolerated))
        assert (owners - tolerated) * share**2 == pytest.approx(1.0)


def test_a_single_owner_carries_the_full_noise():
    assert share_std(2.0 * 0.5, 1 - effective_tolerance(1, 7)) == 1.0
    assert effective_tolerance(3, 99) == 2
    with pytest.raises(InputError, match="owner"):
        effective_tolerance(0, 0)


def test_a_round_with_too_many_missing_is_charged_for_the_noise_it_had():
    owners = {"fusion": 15, "encoder/ct": 3, "head/medical": 1}
    assert realised_noise_multiplier(4.0, owners, 2, {"fusion": 2}) == 4.0
    assert realised_noise_multiplier(4.0, owners, 2, {}) == 4.0
    short = realised_noise_multiplier(4.0, owners, 2, {"fusion": 5, "encoder/ct": 2})
    assert short == pytest.approx(4.0 * math.sqrt(10 / 13))
    with pytest.raises(InputError, match="head/medical"):
        realised_noise_multiplier(4.0, owners, 2, {"head/medical": 1})


def test_groups_share_one_joint_guarantee():
    assert joint_noise_multiplier([(1.0, 2.0)]) == 2.0
    assert joint_noise_multiplier([(1.0, 2.0), (3.0, 6.0)]) == pytest.approx(2.0 / math.sqrt(2))
    groups = {"ct": (0.5, None), "mri": (1.0, 0.2), "rest": (2.0, 5.0)}
    stds = group_noise_stds(7.0, groups)
    assert joint_noise_multiplier([(groups[n][0], stds[n]) for n in groups]) == pytest.approx(7.0)
    assert stds["rest"] / stds["mri"] == pytest.approx(25.0)
    with pytest.raises(InputError):
        joint_noise_multiplier([])


def test_noise_repeats_with_its_generator_and_only_then():
    one, again, other = (
        gaussian_noise(100, 2.0, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert one.dtype == np.float32
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("mechanism", sorted(INTEGER_NOISE))
@pytest.mark.parametrize("std", [0.3, 2.5, 1e5, 2.0**30])
def test_integer_noise_has_the_size_and_type_asked_for(mechanism, std):
    noise = INTEGER_NOISE[mechanism](257, std, np.random.default_rng(0))
    assert noise.shape == (257,)
    assert noise.dtype == np.int64
    assert INTEGER_NOISE[mechanism](0, std, np.random.default_rng(0)).size == 0


@pytest.mark.parametrize("mechanism", sorted(INTEGER_NOISE))
@pytest.mark.parametrize("std", [0.0, -1.0, float("nan"), 2.0**31])
def test_integer_noise_out_of_bounds_is_refused(mechanism, std):
    with pytest.raises(InputError, match="noise"):
        INTEGER_NOISE[mechanism](5, std, np.random.default_rng(0))


def test_rounding_is_paid_for_in_the_sensitivity():
    scale = integer_scale(0.5, 10_000, overhead=0.01)
    assert scale.l2 == pytest.approx(1.01 * scale.scale * 0.5)
    rng = np.random.default_rng(0)
    step = rng.standard_normal(10_000)
    step *= 0.5 / np.linalg.norm(step)
    total = rng.standard_normal(10_000)
    moved = np.rint((total + step) * scale.scale) - np.rint(total * scale.scale)
    assert np.linalg.norm(moved) <= scale.l2
    assert np.abs(moved).sum() <= scale.l1
    assert 2.0 ** scale.modulus_bits(1650, 30.0) > 2 * 1650 * scale.scale * 0.5
    with pytest.raises(InputError):
        integer_scale(0.0, 10)


def test_discrete_terms_approach_the_gaussians_from_above():
    for mechanism in ("skellam", "discrete-gaussian"):
        for dimension in (1, 1000, 100_000):
            rho, xi = concentrated_terms(mechanism, 5.0, integer_scale(0.5, dimension), 15)
            assert rho == pytest.approx(0.02, rel=1e-3)
            assert rho >= 0.02 * (1 - 1e-12)
            assert 0.0 <= xi < 1e-3
    with pytest.raises(InputError, match="mechanism"):
        concentrated_terms("gaussian", 1.0, integer_scale(1.0, 1))


def test_little_discrete_noise_costs_extra():
    coarse = integer_scale(0.5, 1, overhead=2.0)  # a sensitivity of 1.5 units
    rho, xi = concentrated_terms("discrete-gaussian", 0.4, coarse, shares=10)
    assert 16 * rho + xi > 1.5 * 16 / (2 * 0.4**2)
    rho, xi = concentrated_terms("skellam", 0.4, coarse)
    assert 16 * rho + xi > 1.1 * 16 / (2 * 0.4**2)


def test_the_count_of_adaptive_clipping_is_paid_by_the_gradients():
    sigma, count_std = 3.0, 15.0
    inflated = gradient_noise_multiplier(sigma, count_std)
    assert joint_noise_multiplier([(1.0, inflated), (0.5, count_std)]) == pytest.approx(sigma)
    assert inflated / sigma == pytest.approx(1.005, abs=1e-3)
    with pytest.raises(InputError, match="count_noise"):
        gradient_noise_multiplier(3.0, 1.5)


def test_the_adaptive_norm_settles_on_the_quantile():
    rng = np.random.default_rng(0)
    clip = AdaptiveClip(50.0, target_quantile=0.7)
    for _ in range(200):
        norms = rng.uniform(0.0, 1.0, 500)
        count = centred_count(norms, clip.clip_norm) + rng.normal(0.0, 5.0)
        clip = clip.update(count, 500)
    assert clip.clip_norm == pytest.approx(0.7, abs=0.05)


def test_dropped_records_count_as_clipped_and_noise_cannot_run_away():
    assert centred_count(np.array([0.1, np.nan, np.inf]), 1.0) == pytest.approx(-0.5)
    assert AdaptiveClip(1.0).update(-1e9, 10).clip_norm == pytest.approx(math.exp(0.1))
