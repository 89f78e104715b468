"""The adaptive policy's options, made up from released sums and means alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fedfuse_ray.compression import CODECS
from fedfuse_ray.compression.codec import Context, Setting
from fedfuse_ray.config import CompressionConfig
from fedfuse_ray.config.settings.compression import ADAPTIVE_CODECS
from fedfuse_ray.federation.server.adaptation import (
    FRACTIONS,
    NARROWEST,
    WIDEST,
    Adaptation,
    overflow_error,
)
from fedfuse_ray.packing import packed_bytes
from fedfuse_ray.privacy.secure_aggregation import from_modular, to_modular

SIZE = 20_000


def adaptation(senders=3, codec="modint", **policy):
    config = CompressionConfig.model_validate(
        {"codec": codec, "policy": {"kind": "adaptive", **policy}}
    )
    return Adaptation(config, {"a": senders, "b": senders})


def gaussian_sum(rms, size=SIZE, seed=0):
    return np.rint(np.random.default_rng(seed).normal(0, rms, size)).astype(np.int64)


def wrapped(total, bits):
    return from_modular(to_modular(total, bits), bits)


def bits_after(total, before, **policy):
    chosen = adaptation(**policy).after_secure_sum({"a": total}, {"a": before})
    return chosen["a"].bits


def wrapping_error(total, bits):
    """Return the squared error that a modulus of so many bits leaves, over the squared norm."""
    error = wrapped(total, bits) - total
    return float(np.square(error, dtype=float).sum() / np.square(total, dtype=float).sum())


def test_a_grid_that_gets_finer_gets_the_bits_for_it():
    sums, bits = {"a": gaussian_sum(100.0)}, {"a": 16}
    coarse, finer = (adaptation().after_secure_sum(sums, bits, f)["a"].bits for f in (1.0, 4.0))
    assert finer == coarse + 2


@pytest.mark.parametrize("before", [4, 6, 10])
def test_a_sum_that_filled_its_modulus_gets_two_bits_more(before):
    overflown = wrapped(gaussian_sum(2.0**before), before)
    assert bits_after(overflown, before) == before + 2


def test_widening_ends_at_the_words_that_are_sent():
    overflown = wrapped(gaussian_sum(2.0**33), WIDEST)
    assert bits_after(overflown, WIDEST) == WIDEST


def test_overflow_is_noticed_just_where_a_gaussian_begins_to_wrap():
    # Three standard deviations are half the modulus: a few in a thousand have wrapped.
    for margin, widened in ((0.9, False), (1.1, True)):
        total = gaussian_sum(margin * 2.0**12 / 6)
        assert (bits_after(wrapped(total, 12), 12, error_target=0.9) == 14) == widened


def test_repeated_widening_recovers_the_bits_that_the_sum_needs():
    total, bits = gaussian_sum(3000.0), 5
    for _ in range(8):
        bits = bits_after(wrapped(total, bits), bits)
    assert wrapping_error(total, bits) == 0.0
    assert bits == bits_after(total, WIDEST)


@pytest.mark.parametrize("rms", [1.0, 20.0, 1000.0])
def test_quiet_sums_are_narrowed_but_not_below_what_six_sigma_need(rms):
    bits = bits_after(gaussian_sum(rms), WIDEST, error_target=1e-6)
    assert bits < 20
    assert 2.0 ** (bits - 1) >= 6 * rms
    # And not much wider than that: the growth allowed for is half a bit, rounding up another.
    assert 2.0 ** (bits - 1) <= 6 * rms * 1.5 * 2


def test_a_zero_sum_is_still_given_bits():
    assert NARROWEST <= bits_after(np.zeros(50, np.int64), 20) <= 6


def test_a_looser_target_takes_no_more_bits():
    total = gaussian_sum(300.0)
    bits = [bits_after(total, 20, error_target=t) for t in (1e-9, 1e-6, 1e-3, 1e-1, 0.9)]
    assert bits == sorted(bits, reverse=True)
    assert bits[0] > bits[-1]


@pytest.mark.parametrize("target", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("growth", [1.0, 1.5])
def test_the_chosen_bits_keep_the_error_under_the_target_and_two_fewer_do_not(target, growth):
    bits = bits_after(gaussian_sum(700.0), 20, error_target=target)
    following = gaussian_sum(700.0 * growth, size=400_000, seed=1)
    assert wrapping_error(following, bits) <= target
    # Negative control: the same check sees that a narrower modulus would not do.
    assert wrapping_error(following, bits - 2) > 5 * target


@pytest.mark.parametrize(
    "ratio",
    [0.25, 0.5, 1.0, 2.0, 3.0],
)
def test_the_predicted_overflow_error_is_that_of_gaussian_sums(ratio):
    rms = 2.0**9 / ratio
    measured = wrapping_error(gaussian_sum(rms, size=400_000, seed=3), 10)
    assert overflow_error(10, rms) == pytest.approx(measured, rel=0.1)
    # Negative control: with a bit more or less it would be another.
    assert overflow_error(11, rms) != pytest.approx(measured, rel=0.1) or ratio < 0.5


@pytest.mark.parametrize("rms", [0.75, 30.0, 1e4])
def test_a_wider_modulus_is_never_thought_to_leave_much_more(rms):
    errors = [overflow_error(bits, rms) for bits in range(NARROWEST, WIDEST + 1)]
    # Wrapping every entry at random leaves about one; a little more where few wrap.
    assert all(wider <= 1.3 * narrower for narrower, wider in itertools.pairwise(errors))
    assert errors[-1] == 0.0


def test_a_byte_budget_is_kept_and_counts_every_sender():
    sums = {"a": gaussian_sum(100.0), "b": gaussian_sum(100.0, size=500)}
    for budget in (4 * packed_bytes(SIZE + 500, 10), 4 * packed_bytes(SIZE + 500, 11)):
        policy = adaptation(senders=4, byte_budget=budget)
        chosen = policy.after_secure_sum(sums, dict.fromkeys(sums, 24))
        spent = sum(4 * packed_bytes(sums[n].size, s.bits) for n, s in chosen.items())
        assert 0.8 * budget <= spent <= budget


def test_a_tight_budget_goes_to_the_block_with_more_to_lose():
    sums = {"a": gaussian_sum(100.0), "b": gaussian_sum(5.0)}
    policy = adaptation(senders=1, byte_budget=packed_bytes(SIZE, 8) + packed_bytes(SIZE, 5))
    chosen = policy.after_secure_sum(sums, dict.fromkeys(sums, 24))
    assert chosen["a"].bits > chosen["b"].bits


def test_the_choice_follows_from_the_released_sums_alone():
    one = bits_after(gaussian_sum(5.0), 16)
    assert one == bits_after(gaussian_sum(5.0), 16)
    # What it was summed in matters only where it may have wrapped.
    assert one == bits_after(gaussian_sum(5.0), 24)
    # Order and sign of the entries do not matter; scale does.
    assert one == bits_after(-np.sort(gaussian_sum(5.0)), 16)
    assert one + 3 == bits_after(8 * gaussian_sum(5.0), 16)


def mean_of(size=4000, heavy=False):
    generator = np.random.default_rng(5)
    vector = generator.standard_normal(size)
    return (vector**5 if heavy else vector).astype(np.float32)


def after_mean(codec, vector, **policy):
    return adaptation(codec=codec, **policy).after_mean({"a": vector})["a"]


def test_topk_keeps_the_least_fraction_that_holds_the_energy():
    mean = mean_of(heavy=True)
    for target in (0.5, 0.1, 0.01):
        fraction = after_mean("topk", mean, error_target=target).fraction
        assert fraction in FRACTIONS
        assert left_by_topk(mean, fraction) <= target
        if fraction > FRACTIONS[0]:
            below = FRACTIONS[FRACTIONS.index(fraction) - 1]
            assert left_by_topk(mean, below) > target


def left_by_topk(mean, fraction):
    squares = np.sort(np.square(mean.astype(float)))
    return squares[: squares.size - round(fraction * squares.size)].sum() / squares.sum()


def test_topk_takes_fewer_entries_of_a_heavy_tail_than_of_a_dense_vector():
    heavy, dense = (
        after_mean("topk", mean_of(heavy=h), error_target=0.1).fraction for h in (True, False)
    )
    assert heavy < dense


def test_topk_of_nothing_costs_as_little_as_it_can():
    assert after_mean("topk", np.zeros(100, np.float32)).fraction == FRACTIONS[0]


def test_modint_bits_leave_the_error_that_was_asked_for():
    mean = mean_of()
    settings = [after_mean("modint", mean, error_target=t) for t in (0.1, 1e-2, 1e-4)]
    for setting, target in zip(settings, (0.1, 1e-2, 1e-4), strict=True):
        assert setting.fraction == 1.0
        assert codec_error("modint", mean, setting) <= target
        # Negative control: the choice is no wider than needed by more than a bit.
        narrow = Setting(bits=setting.bits - 2, fraction=1.0)
        assert codec_error("modint", mean, narrow) > target


def codec_error(codec, vector, setting):
    context = Context(0, 1, "a", "site")
    payload = CODECS[codec].encode(vector, setting, context)
    decoded = CODECS[codec].decode(payload, vector.size, setting, context).astype(float)
    return np.square(decoded - vector).sum() / np.square(vector, dtype=float).sum()


def test_a_subspace_keeps_what_the_target_leaves():
    assert after_mean("subspace", mean_of(), error_target=0.7).fraction == 0.35
    assert after_mean("subspace", mean_of(), error_target=1e-3).fraction == 1.0
    setting = after_mean("subspace", mean_of(), error_target=0.7)
    assert codec_error("subspace", mean_of(), setting) == pytest.approx(0.65, abs=0.05)


@pytest.mark.parametrize(
    "codec",
    ["topk", "modint", "subspace"],
)
def test_options_cost_what_the_codec_sends(codec):
    mean = mean_of(heavy=codec == "topk")
    for option in adaptation(senders=1, codec=codec)._options("a", mean):
        payload = CODECS[codec].encode(mean, option.setting, Context(0, 1, "a", "site"))
        assert option.nbytes == pytest.approx(len(payload), rel=0.25, abs=64)


@pytest.mark.parametrize("codec", ["topk", "modint", "subspace"])
def test_a_budget_over_means_is_kept(codec):
    mean = {"a": mean_of(heavy=True), "b": mean_of(size=1000)}
    policy = adaptation(senders=2, codec=codec, byte_budget=12_000)
    chosen = policy.after_mean(mean)
    options = {name: policy._options(name, vector) for name, vector in mean.items()}
    spent = sum(
        next(o.nbytes for o in options[name] if o.setting == setting)
        for name, setting in chosen.items()
    )
    assert 6_000 < spent <= 12_000


@pytest.mark.parametrize(
    "codec",
    sorted(ADAPTIVE_CODECS - {"countsketch"}),
)
def test_every_codec_that_may_adapt_has_options_without_secure_sums(codec):
    assert 0.0 < after_mean(codec, mean_of()).fraction <= 1.0
