"""The noise, the sampler and the clip are what the accountant assumes; wrong ones are rejected.

Every check is a function that accepts or rejects an implementation. It must accept ours and reject
a planted fault, so that a check that can't fail would fail itself.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from fedfuse_ray.privacy.mechanisms.gaussian import effective_tolerance, gaussian_noise, share_std
from fedfuse_ray.privacy.mechanisms.integers import INTEGER_NOISE
from fedfuse_ray.privacy.mechanisms.sampling import poisson_sample
from fedfuse_ray.privacy.randomness import derived
from tests.support.privacy.clipping import clipped

SIGMA, CLIP, OWNERS, SIZE = 2.0, 0.5, 15, 60_000
CONFIDENCE = 1e-6


def has_variance(sample, variance):
    """Accept a sample whose variance fits, by the chi-squared test on both sides."""
    statistic = float(np.sum(np.square(sample, dtype=np.float64))) / variance
    low, high = stats.chi2.ppf([CONFIDENCE, 1 - CONFIDENCE], sample.size)
    return bool(low < statistic < high)


def aggregate(std, owners=OWNERS, blocks=("encoder/ct", "fusion"), silent=()):
    """Return the secure sum's noise on each block when every gradient is zero."""
    totals = {}
    for index, block in enumerate(blocks):
        shares = [
            gaussian_noise(SIZE, std, np.random.default_rng((index, owner)))
            for owner in range(owners)
        ]
        totals[block] = np.zeros(SIZE) if block in silent else np.sum(shares, axis=0)
    return totals


def share(tolerated):
    """Return the standard deviation of one owner's share."""
    return share_std(SIGMA * CLIP, OWNERS - effective_tolerance(OWNERS, tolerated))


def carries_the_noise(totals):
    return all(has_variance(total, (SIGMA * CLIP) ** 2) for total in totals.values())


@pytest.mark.parametrize("tolerated", [0, 3])
def test_the_sum_of_the_remaining_shares_carries_the_central_noise(tolerated):
    assert carries_the_noise(aggregate(share(tolerated), OWNERS - tolerated))


@pytest.mark.parametrize(
    "fault",
    [
        # divided by sqrt(15) twice; by K in place of sqrt(K); not inflated for dropouts; 3% off
        lambda: aggregate(share(0) / math.sqrt(OWNERS)),
        lambda: aggregate(SIGMA * CLIP / OWNERS),
        lambda: aggregate(share(0), OWNERS - 3),
        lambda: aggregate(0.97 * share(0)),
        lambda: aggregate(share(0), silent=("fusion",)),
    ],
    ids=["sqrt(15)", "K", "dropouts", "3%", "silent block"],
)
def test_wrong_noise_is_rejected(fault):
    assert not carries_the_noise(fault())


@pytest.mark.parametrize("mechanism", sorted(INTEGER_NOISE))
@pytest.mark.parametrize("std", [2.0, 300.0])
def test_integer_shares_add_up_to_the_variance(mechanism, std):
    share = std / math.sqrt(OWNERS) if mechanism == "skellam" else std
    owners = OWNERS if mechanism == "skellam" else 1
    total = sum(
        INTEGER_NOISE[mechanism](SIZE, share, np.random.default_rng((5, i))) for i in range(owners)
    )
    # Rounding to integers adds a variance of 1/12.
    assert has_variance(total, std**2 + (1 / 12 if mechanism == "gaussian" else 0.0))
    assert not has_variance(total, (std * 1.03) ** 2)


def expected_frequencies(mechanism, std, support):
    if mechanism == "skellam":
        return stats.skellam.pmf(support, std**2 / 2, std**2 / 2)
    if mechanism == "gaussian":
        return stats.norm.cdf(support + 0.5, scale=std) - stats.norm.cdf(support - 0.5, scale=std)
    weights = np.exp(-(support**2) / (2 * std**2))
    return weights / weights.sum()


def fits(sample, probabilities, support):
    counts = np.array([np.count_nonzero(sample == value) for value in support])
    keep = probabilities * sample.size >= 5
    observed = np.append(counts[keep], sample.size - counts[keep].sum())
    expected = np.append(probabilities[keep], 1 - probabilities[keep].sum()) * sample.size
    if expected[-1] < 1:
        observed, expected = observed[:-1], expected[:-1] * observed[:-1].sum() / sum(expected[:-1])
    return stats.chisquare(observed, expected).pvalue > CONFIDENCE


@pytest.mark.parametrize("mechanism", sorted(INTEGER_NOISE))
@pytest.mark.parametrize("std", [0.6, 1.7])
def test_integer_noise_has_its_own_distribution_and_no_other(mechanism, std):
    support = np.arange(-40, 41)
    sample = INTEGER_NOISE[mechanism](200_000, std, np.random.default_rng(3))
    for other in INTEGER_NOISE:
        agrees = fits(sample, expected_frequencies(other, std, support), support)
        # Rounded and discrete Gaussian coincide to the eye once the noise exceeds a unit or two.
        if other == mechanism or std < 1 or "skellam" in (other, mechanism):
            assert agrees == (other == mechanism)


def batches(sampler, size=400, rate=0.1, steps=3_000):
    return [sampler(size, rate, step) for step in range(steps)]


def ours(size, rate, step):
    return poisson_sample(size, rate, derived(1), "med-01", step // 10, step % 10)


def shuffling(size, rate, step):
    """Cut an epoch's permutation into batches of one size, as a data loader does."""
    per_epoch = round(1 / rate)
    order = np.random.default_rng(step // per_epoch).permutation(size)
    return np.array_split(order, per_epoch)[step % per_epoch]


def with_one_size(size, rate, step):
    return np.random.default_rng(step).choice(size, round(size * rate), replace=False)


def is_poisson(sampler, size=400, rate=0.1, steps=3_000):
    """Accept independent inclusions with probability q: batch sizes and records are binomial."""
    drawn = batches(sampler, size, rate, steps)
    lengths = np.array([len(batch) for batch in drawn])
    per_record = np.bincount(np.concatenate(drawn), minlength=size)
    spread = np.sum((lengths - size * rate) ** 2) / (size * rate * (1 - rate))
    record_spread = np.sum((per_record - steps * rate) ** 2) / (steps * rate * (1 - rate))
    low, high = stats.chi2.ppf([CONFIDENCE, 1 - CONFIDENCE], steps)
    record_low, record_high = stats.chi2.ppf([CONFIDENCE, 1 - CONFIDENCE], size)
    return bool(low < spread < high and record_low < record_spread < record_high)


def test_our_sampler_is_poisson():
    assert is_poisson(ours)


@pytest.mark.parametrize(
    "fault",
    [shuffling, with_one_size, lambda size, rate, step: ours(size, 1.1 * rate, step)],
    ids=["shuffling", "one size", "rate 10% off"],
)
def test_other_samplers_are_rejected(fault):
    assert not is_poisson(fault)


def missing_fusion(gradients, clip_norms):
    """Clip the encoder alone; the fusion block's gradient passes as it is."""
    rest = clipped({k: v for k, v in gradients.items() if k != "fusion"}, clip_norms)
    return {**rest.sums, "fusion": gradients["fusion"].sum(0)}


def each_block_apart(gradients, clip_norms):
    return {k: clipped({k: v}, clip_norms).sums[k] for k, v in gradients.items()}


def jointly(gradients, clip_norms):
    return clipped(gradients, clip_norms).sums


def is_sensitive_at_most(clip, bound, trials=50):
    """Accept a clip under which no record, of any shape, moves the sums by more than `bound`."""
    rng = np.random.default_rng(0)
    for trial in range(trials):
        blocks = {
            name: (rng.standard_normal((8, 30)) * 10.0 ** rng.uniform(-2, 2, (8, 1)))
            for name in ("encoder/ct", "fusion", "head/medical")
        }
        without = {name: np.delete(rows, trial % 8, axis=0) for name, rows in blocks.items()}
        full, fewer = clip(blocks, {"joint": bound}), clip(without, {"joint": bound})
        moved = np.concatenate([full[name] - fewer[name] for name in blocks])
        if np.linalg.norm(moved) > bound * (1 + 1e-4):
            return False
    return True


def test_our_clip_bounds_what_one_record_can_do():
    assert is_sensitive_at_most(jointly, CLIP)


@pytest.mark.parametrize("fault", [missing_fusion, each_block_apart])
def test_a_clip_that_misses_a_block_is_rejected(fault):
    assert not is_sensitive_at_most(fault, CLIP)
