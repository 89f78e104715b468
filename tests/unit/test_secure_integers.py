"""From clipped sums to modular integers and back, on the fine and the coarse grid."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from federations import plan_of, tiny

from fedfuse_ray import rng
from fedfuse_ray.compression.rotation import unrotate
from fedfuse_ray.federation import secure_integers
from fedfuse_ray.federation.coding import SETTING
from fedfuse_ray.federation.privacy_terms import COUNT
from fedfuse_ray.federation.secure_integers import (
    CLIP_NORM,
    NOISE_FACTOR,
    expected_batch,
    gradient_sums,
    is_coarse,
    mean_gradients,
    modulus_bits,
    noisy_words,
    released_signal,
    unclipped_count,
)
from fedfuse_ray.models.initial import block_sizes
from fedfuse_ray.privacy.integer_noise import INTEGER_NOISE
from fedfuse_ray.privacy.mechanisms import gaussian_noise
from fedfuse_ray.privacy.secure_aggregation import from_modular

SIGMA, CLIP, ROUNDS = 2.0, 0.5, 12
FINE, COARSE = "compression.codec=fp32", "compression.codec=modint"
ADAPTIVE = "privacy.adaptive_clipping.enabled=true"


def secure_plan(*settings):
    usual = (
        f"training.rounds={ROUNDS}",
        "privacy.target_epsilon=null",
        f"privacy.noise_multiplier={SIGMA}",
        f"privacy.clip_norm={CLIP}",
    )
    return plan_of(tiny(*usual, *settings, paradigm="fedfuse"))


@pytest.fixture(scope="module")
def fine():
    return secure_plan(FINE)


@pytest.fixture(scope="module")
def coarse():
    return secure_plan(COARSE)


@pytest.fixture(scope="module")
def exact():
    """Return a plan whose coarse grid is nearly none, so that its decoded noise is not rounded."""
    return secure_plan(COARSE, "compression.rounding_step=0.01")


@pytest.fixture
def quiet(monkeypatch):
    """Take the noise away, and leave all else."""
    silence(monkeypatch, lambda size, std, generator: np.zeros(size, np.float32))


def silence(monkeypatch, coarse_noise):
    """Put another sampler in both grids' places."""
    monkeypatch.setattr(secure_integers, "gaussian_noise", coarse_noise)
    monkeypatch.setitem(
        INTEGER_NOISE,
        "gaussian",
        lambda size, std, generator: np.rint(coarse_noise(size, std, generator)).astype(np.int64),
    )


def summed(plan, inputs, round=1, extra=None):
    """Return the sums of integers that secure aggregation would reveal."""
    extra, totals = extra or {}, {}
    for name, blocks in inputs.items():
        for block, words in noisy_words(blocks, name, round, plan, extra).items():
            totals[block] = totals.get(block, 0) + words.astype(np.int64)
    bits = {block: modulus_bits(plan, block, extra) for block in totals}
    return {
        block: from_modular((total & ((1 << bits[block]) - 1)).astype(np.uint64), bits[block])
        for block, total in totals.items()
    }


def clipped_inputs(plan, scale=CLIP, count=False):
    """Return a vector of norm `scale` for every owner and block."""
    generator = np.random.default_rng(0)
    inputs = {}
    for p in plan.participants:
        inputs[p.name] = {}
        for block in plan.blocks_of(p):
            size = plan.coding.coordinates(block, block_sizes(plan.spec)[block])
            vector = generator.standard_normal(size)
            inputs[p.name][block] = (scale * vector / np.linalg.norm(vector)).astype(np.float32)
        if count:
            inputs[p.name][COUNT] = np.array([3.5], np.float32)
    return inputs


def true_sums(inputs):
    sums = {}
    for blocks in inputs.values():
        for block, vector in blocks.items():
            sums[block] = sums.get(block, 0) + vector.astype(float)
    return sums


def grid(plan, block):
    """Return a grid step of the sum in units of gradient, from the documented formulas."""
    if not is_coarse(plan, block):
        return 1 / plan.privacy.scale.scale
    share = SIGMA * CLIP / math.sqrt(plan.privacy.shares(block))
    return plan.experiment.compression.rounding_step * share


def decodes(plan, inputs, sums, round=1):
    """Whether decoded sums are the true ones, up to half a grid step an owner and coordinate."""
    decoded = gradient_sums(sums, plan, round, {})
    for block, expected in true_sums(inputs).items():
        owners = len(plan.owners[block])
        error = np.linalg.norm(decoded[block] - expected)
        if error > 0.5 * owners * grid(plan, block) * math.sqrt(expected.size) + 1e-5:
            return False
    return set(decoded) == set(true_sums(inputs))


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("kind", ["fine", "coarse", "exact"])
@pytest.mark.parametrize("round", [1, 3])
def test_without_noise_the_decoded_sum_is_the_sum_up_to_rounding(kind, round, request):
    plan = request.getfixturevalue(kind)
    inputs = clipped_inputs(plan, scale=20 * CLIP)
    sums = summed(plan, inputs, round)
    assert decodes(plan, inputs, sums, round)
    # Negative control: one owner short is noticed.
    inputs["med-02"] = {name: 0 * vector for name, vector in inputs["med-02"].items()}
    assert not decodes(plan, inputs, sums, round)


@pytest.mark.usefixtures("quiet")
def test_owners_share_a_rotation_that_changes_with_round_and_block(exact, monkeypatch):
    inputs = clipped_inputs(exact, scale=20 * CLIP)
    assert decodes(exact, inputs, summed(exact, inputs))
    # The server of another round would turn the sum back by another rotation.
    assert not decodes(exact, inputs, summed(exact, inputs, round=2), round=1)
    counter = itertools.count()
    own = lambda plan, block, round: rng.generator(0, "own rotation", next(counter))  # noqa: E731
    monkeypatch.setattr(secure_integers, "_rotation", own)
    assert not decodes(exact, inputs, summed(exact, inputs))


@pytest.mark.usefixtures("quiet")
def test_the_coarse_grid_leaves_no_coordinate_standing_out(coarse):
    size = block_sizes(coarse.spec)["fusion"]
    spike = np.zeros(size, np.float32)
    spike[3] = 1000 * CLIP
    words = noisy_words(
        {"fusion": spike}, "med-01", 1, coarse, {SETTING + "fusion": np.array([32, 1.0])}
    )
    integers = from_modular(words["fusion"], 32)
    assert np.abs(integers).max() < 6 * np.sqrt(np.mean(np.square(integers.astype(float))))


@pytest.mark.usefixtures("quiet")
def test_owners_beyond_the_modulus_cancel_exactly():
    plan = secure_plan(COARSE, "compression.bits=6")
    inputs = clipped_inputs(plan, scale=CLIP)
    generator = np.random.default_rng(1)
    large = 500 * CLIP * generator.standard_normal(2056).astype(np.float32)
    pair = {
        "med-01": {"encoder/ct": inputs["med-01"]["encoder/ct"] + large},
        "med-02": {"encoder/ct": inputs["med-02"]["encoder/ct"] - large},
    }
    words = noisy_words(pair["med-01"], "med-01", 1, plan, {})["encoder/ct"]
    assert words.max() < 64
    assert words.max() - words.min() > 60  # wrapped many times
    assert decodes(plan, pair, summed(plan, pair))


@pytest.mark.usefixtures("quiet")
def test_a_sum_beyond_the_modulus_is_off_by_just_the_modulus():
    wide, narrow = (secure_plan(COARSE, f"compression.bits={bits}") for bits in (24, 6))
    inputs = clipped_inputs(wide, scale=1000 * CLIP)
    there, wrapped = (summed(plan, inputs)["encoder/ct"] for plan in (wide, narrow))
    assert np.any(there != wrapped)
    np.testing.assert_array_equal((there - wrapped) % 64, 0)
    assert wrapped.min() >= -32
    assert wrapped.max() < 32


def test_the_modulus_is_what_config_and_policy_say(fine, coarse):
    policy = {SETTING + "fusion": np.array([11, 0.1], np.float32)}
    assert modulus_bits(fine, "fusion", {}) == 32
    assert modulus_bits(fine, "fusion", policy) == 32
    assert modulus_bits(coarse, "fusion", policy) == 11
    assert modulus_bits(coarse, "head/medical", policy) == modulus_bits(coarse, "head/medical", {})
    chosen = secure_plan(COARSE, "compression.bits=9")
    assert modulus_bits(chosen, "fusion", {}) == 9
    assert modulus_bits(chosen, "fusion", policy) == 11


def test_proven_mechanisms_and_counts_take_the_terms_bound():
    proven = secure_plan(COARSE, "privacy.mechanism=skellam")
    records = sum(p.specimens for p in proven.participants)
    assert not is_coarse(proven, "fusion")
    assert modulus_bits(proven, "fusion", {}) == proven.privacy.modulus_bits(records)
    counted = secure_plan(COARSE, ADAPTIVE, "compression.bits=5")
    assert not is_coarse(counted, COUNT)
    assert modulus_bits(counted, COUNT, {}) == counted.privacy.modulus_bits(records)
    assert modulus_bits(counted, "fusion", {}) == 5


def one_direction(plan, round=1):
    """Return what every record of every owner at the clip would give, all along one rotated axis.

    Nothing can be further out: the rotation keeps norms.
    """
    inputs = {}
    for p in plan.participants:
        inputs[p.name] = {}
        for block in plan.blocks_of(p):
            axis = np.zeros(block_sizes(plan.spec)[block], np.float32)
            axis[0] = CLIP * p.specimens
            stream = rng.generator(plan.experiment.seed, "secure rotation", block, round)
            inputs[p.name][block] = unrotate(axis, stream)
    return inputs


@pytest.mark.parametrize("step", [1.0, 0.1, 0.003])
@pytest.mark.parametrize("sigma", [0.05, 2.0, 40.0])
def test_the_automatic_modulus_holds_all_records_in_one_direction(sigma, step):
    plan = secure_plan(
        COARSE, f"privacy.noise_multiplier={sigma}", f"compression.rounding_step={step}"
    )
    inputs = one_direction(plan)
    held = summed(plan, inputs)
    for block, total in held.items():
        bits = modulus_bits(plan, block, {})
        wide = {SETTING + block: np.array([32, 1.0], np.float32)}
        np.testing.assert_array_equal(total, summed(plan, inputs, extra=wide)[block])
        assert np.abs(total).max() < 2 ** (bits - 1)
    # Negative control: the bound is not generous by more than two bits where records prevail.
    if sigma == 0.05:
        least = {SETTING + "fusion": np.array([modulus_bits(plan, "fusion", {}) - 2, 1.0])}
        assert np.any(summed(plan, inputs, extra=least)["fusion"] != held["fusion"])


def released_noise(plan, extra=None):
    """Return the decoded sums of nothing but noise, over all rounds, by block."""
    zeros = {n: {b: 0 * v for b, v in blocks.items()} for n, blocks in clipped_inputs(plan).items()}
    rounds = [
        gradient_sums(summed(plan, zeros, round, extra), plan, round, extra or {})
        for round in range(1, ROUNDS + 1)
    ]
    return {block: np.concatenate([decoded[block] for decoded in rounds]) for block in rounds[0]}


def noise_is(plan, expected, extra=None, widened=1.0):
    """Whether every block's noise has the standard deviation that was charged: chi-square, 5 sigma.

    All of the owners are there, where K - t shares would do: sigma C sqrt(K / (K - t)).
    """
    for block, values in released_noise(plan, extra).items():
        owners = len(plan.owners[block])
        std = widened * expected * math.sqrt(owners / plan.privacy.shares(block))
        if abs(np.mean((values / std) ** 2) - 1) > 5 * math.sqrt(2 / values.size):
            return False
    return True


def rounding(plan):
    """Return the factor of what rounding adds to a share: a twelfth of the squared grid step."""
    return math.sqrt(1 + plan.experiment.compression.rounding_step**2 / 12)


@pytest.mark.parametrize("kind", ["fine", "coarse", "exact"])
def test_the_noise_on_the_sum_is_what_is_charged(kind, request):
    plan = request.getfixturevalue(kind)
    widened = 1.01 if kind == "fine" else rounding(plan)
    assert noise_is(plan, SIGMA * CLIP, widened=widened)


@pytest.mark.parametrize("kind", ["fine", "coarse"])
def test_noise_divided_by_the_root_of_fifteen_is_caught(kind, request, monkeypatch):
    plan = request.getfixturevalue(kind)
    silence(monkeypatch, lambda size, std, draws: gaussian_noise(size, std / 15**0.5, draws))
    assert not noise_is(plan, SIGMA * CLIP, widened=1.01 if kind == "fine" else rounding(plan))


@pytest.mark.parametrize("kind", ["fine", "coarse"])
def test_one_block_without_noise_is_caught(kind, request, monkeypatch):
    plan = request.getfixturevalue(kind)
    bare = block_sizes(plan.spec)["fusion"]
    silence(
        monkeypatch,
        lambda size, std, draws: gaussian_noise(size, 0.0 if size == bare else std, draws),
    )
    assert not noise_is(plan, SIGMA * CLIP, widened=1.01 if kind == "fine" else rounding(plan))


def test_a_schedule_scales_the_noise_of_its_round():
    factors = [1.0 + 0.5 * (index % 2) for index in range(ROUNDS)]
    plan = secure_plan(
        COARSE,
        "compression.rounding_step=0.01",
        f"privacy.noise_schedule={factors}",
    )
    mean_square = math.sqrt(np.mean(np.square(factors)))
    # Over an even number of rounds; the mixture's fourth moment is within the band of 5 sigma.
    assert noise_is(plan, SIGMA * CLIP * mean_square)
    assert not noise_is(plan, SIGMA * CLIP)


SPENDING = "privacy.noise_schedule=adaptive"


@pytest.mark.parametrize("codec", [FINE, COARSE])
def test_the_factor_that_was_broadcast_scales_the_noise_of_its_round(codec):
    plan = secure_plan(codec, SPENDING)
    for factor in (0.75, 1.5):
        extra = {NOISE_FACTOR: np.array([factor], np.float32)}
        (event,) = plan.privacy.events("med-01", ("fusion",), 1, factor)
        assert event.noise_multiplier == SIGMA * factor
        widened = 1.01 if codec == FINE else rounding(plan)
        assert noise_is(plan, event.noise_multiplier * CLIP, extra, widened)
        # Negative control: noise that the factor did not reach is not what is charged.
        assert not noise_is(plan, SIGMA * CLIP, extra, widened)


@pytest.mark.parametrize("codec", [FINE, COARSE])
@pytest.mark.parametrize("scale", [0.0, 200.0])
def test_the_signal_is_told_from_the_noise_without_bias(codec, scale):
    plan = secure_plan(codec, SPENDING)
    owners, inputs = plan.owners, clipped_inputs(plan, scale * CLIP)
    extra = {NOISE_FACTOR: np.array([1.5], np.float32)}

    def seen(owners):
        rounds = range(1, ROUNDS + 1)
        sums = {round: summed(plan, inputs, round, extra) for round in rounds}
        return [released_signal(sums[r], owners, plan, r, extra) for r in rounds]

    signals = seen(owners)
    found = [signal.energy for signal in signals]
    truth = sum(
        (np.linalg.norm(v) / CLIP / expected_batch(plan, owners[b])) ** 2
        for b, v in true_sums(inputs).items()
    )
    error = np.std(found) / math.sqrt(ROUNDS)
    assert abs(np.mean(found) - truth) < 4 * error
    if not scale:
        assert 0.5 < np.std(found) / signals[0].error < 1.7  # of twelve rounds
    # Negative control: noise of owners that are not counted is taken for signal.
    fewer = {block: names[:1] for block, names in owners.items()}
    blind = [signal.energy for signal in seen(fewer)]
    assert abs(np.mean(blind) - truth) > 4 * error


@pytest.mark.parametrize("codec", [FINE, COARSE])
def test_adaptive_clipping_scales_noise_with_the_rounds_norm(codec):
    plan = secure_plan(codec, ADAPTIVE, "compression.rounding_step=0.01")
    gradient, _ = plan.privacy.adaptive_stds(SIGMA)
    for norm in (CLIP / 4, 2 * CLIP):
        extra = {CLIP_NORM: np.array([norm], np.float32)}
        # The fine grid stays, so what rounding adds does not shrink with the norm.
        added = 0.0 if codec == COARSE else 0.01 * CLIP
        assert noise_is(plan, gradient * (norm + added), extra)
        assert not noise_is(plan, gradient * (norm + 0.1 * CLIP), extra)


def test_a_count_carries_its_own_noise_and_is_decoded_in_records(monkeypatch):
    plan = secure_plan(COARSE, ADAPTIVE)
    extra = {CLIP_NORM: np.array([CLIP], np.float32)}
    zeros = {p.name: {COUNT: np.zeros(1, np.float32)} for p in plan.participants}
    counts = [unclipped_count(summed(plan, zeros, round, extra), plan) for round in (1, 2, 3)]
    assert len(set(counts)) == 3
    draws = []
    count_only = lambda size, std, generator: draws.append(std) or np.zeros(size, np.int64)  # noqa: E731
    monkeypatch.setitem(INTEGER_NOISE, "gaussian", count_only)
    inputs = {p.name: {COUNT: np.array([3.5], np.float32)} for p in plan.participants}
    assert unclipped_count(summed(plan, inputs, 1, extra), plan) == pytest.approx(10.5, abs=1e-3)
    scale, shares = plan.privacy.scale, plan.privacy.shares(COUNT)
    _, std = plan.privacy.adaptive_stds(SIGMA)
    widened = std * (1 + 0.01)
    assert draws == pytest.approx([widened * scale.scale / math.sqrt(shares)] * 3, rel=0.01)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("codec", ["modint", "subspace", "countsketch"])
def test_means_are_sums_over_expected_batches_and_sketches_are_lifted(codec):
    plan = secure_plan(
        f"compression.codec={codec}",
        "compression.rounding_step=0.001",
        "privacy.sampling_rate=0.5",
    )
    sizes = block_sizes(plan.spec)
    inputs = clipped_inputs(plan, scale=10 * CLIP)
    means = mean_gradients(summed(plan, inputs), plan.owners, plan, sizes, 1, {})
    for block, total in true_sums(inputs).items():
        specimens = sum(plan.by_name[name].specimens for name in plan.owners[block])
        assert expected_batch(plan, plan.owners[block]) == pytest.approx(0.5 * specimens)
        mean = (total / (0.5 * specimens)).astype(np.float32)
        lifted = plan.coding.lift(mean, block, sizes[block], 1)
        assert means[block].shape == (sizes[block],)
        np.testing.assert_allclose(means[block], lifted, atol=2e-3)
        if codec != "modint" and block != "head/medical":
            assert total.size < sizes[block] or total.size == sizes[block] <= 256


def test_noise_shares_differ_between_institutions_rounds_and_blocks(coarse):
    zeros = np.zeros(224, np.float32)
    drawn = [
        noisy_words({"fusion": zeros}, name, round, coarse, {})["fusion"]
        for name in ("med-01", "med-02")
        for round in (1, 2)
    ]
    for one, other in itertools.combinations(drawn, 2):
        assert np.mean(one == other) < 0.5
    again = noisy_words({"fusion": zeros}, "med-01", 1, coarse, {})["fusion"]
    np.testing.assert_array_equal(again, drawn[0])
