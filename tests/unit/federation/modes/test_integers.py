"""From clipped sums to modular integers and back, on the fine and the coarse grid."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest

from fedfuse_ray import rng
from fedfuse_ray.compression.codec import Setting
from fedfuse_ray.compression.rotation import unrotate
from fedfuse_ray.federation.messages.released import Released
from fedfuse_ray.federation.modes.grid import grid_of
from fedfuse_ray.federation.modes.integers import gradient_sums, mean_gradients, noisy_words
from fedfuse_ray.federation.plan.noise_shape import COUNT
from fedfuse_ray.models.initial import block_sizes
from fedfuse_ray.privacy.secure_aggregation import from_modular
from tests.support.privacy.secure_sums import (
    ADAPTIVE,
    CLIP,
    COARSE,
    SIGMA,
    clipped_inputs,
    plan_on,
    secure_plan,
    silence,
    summed,
    summed_on,
    true_sums,
)


@pytest.fixture
def quiet(monkeypatch):
    """Take the noise away, and leave all else."""
    silence(monkeypatch, lambda size, std, generator: np.zeros(size, np.float32))


def chosen(block, bits, fraction=1.0):
    """Return what is broadcast where the policy chose a block's bits."""
    return Released(settings={block: Setting(bits=bits, fraction=fraction)})


def bits_of(plan, block, *released):
    return grid_of(plan, 1, *released).bits(block)


def step_of(plan, block):
    """Return a grid step of the sum in units of gradient, from the documented formulas."""
    if not grid_of(plan, 1).is_coarse(block):
        group = plan.privacy.groups((block,))[block]
        return 1 / plan.privacy.scales[group].scale
    share = SIGMA * CLIP / math.sqrt(plan.privacy.shares(block))
    return grid_of(plan, 1).step(block) * share


def decodes(plan, inputs, sums, round=1, grid=None):
    """Whether decoded sums are the true ones, up to half a grid step an owner and coordinate."""
    decoded = gradient_sums(sums, grid or grid_of(plan, round))
    for block, expected in true_sums(inputs).items():
        owners = len(plan.owners[block])
        error = np.linalg.norm(decoded[block] - expected)
        if error > 0.5 * owners * step_of(plan, block) * math.sqrt(expected.size) + 1e-5:
            return False
    return set(decoded) == set(true_sums(inputs))


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("kind", ["fine", "coarse", "exact"])
@pytest.mark.parametrize("round", [1, 3])
def test_without_noise_the_decoded_sum_is_the_sum_up_to_rounding(kind, round):
    plan = plan_on(kind)
    inputs = clipped_inputs(plan, scale=20 * CLIP)
    sums = summed(plan, inputs, round)
    assert decodes(plan, inputs, sums, round)
    # Negative control: one owner short is noticed.
    inputs["med-02"] = {name: 0 * vector for name, vector in inputs["med-02"].items()}
    assert not decodes(plan, inputs, sums, round)


@pytest.mark.usefixtures("quiet")
def test_owners_share_a_rotation_that_changes_with_round_and_block():
    exact = plan_on("exact")
    inputs = clipped_inputs(exact, scale=20 * CLIP)
    assert decodes(exact, inputs, summed(exact, inputs))
    # The server of another round would turn the sum back by another rotation.
    assert not decodes(exact, inputs, summed(exact, inputs, round=2), round=1)
    counter = itertools.count()
    apart = dataclasses.replace(
        grid_of(exact, 1),
        rotation=lambda block, round: rng.generator(0, "own rotation", next(counter)),
    )
    draws = exact.randomness
    assert not decodes(exact, inputs, summed_on(apart, inputs, draws), grid=apart)


@pytest.mark.usefixtures("quiet")
def test_the_coarse_grid_leaves_no_coordinate_standing_out():
    coarse = plan_on("coarse")
    size = block_sizes(coarse.spec)["fusion"]
    spike = np.zeros(size, np.float32)
    spike[3] = 1000 * CLIP
    grid = grid_of(coarse, 1, chosen("fusion", 32))
    words = noisy_words({"fusion": spike}, "med-01", grid, coarse.randomness)
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
    words = noisy_words(pair["med-01"], "med-01", grid_of(plan, 1), plan.randomness)
    words = words["encoder/ct"]
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


def test_the_modulus_is_what_config_and_policy_say():
    fine, coarse = plan_on("fine"), plan_on("coarse")
    policy = chosen("fusion", 11, 0.1)
    assert bits_of(fine, "fusion") == 32
    assert bits_of(fine, "fusion", policy) == 32
    assert bits_of(coarse, "fusion", policy) == 11
    assert bits_of(coarse, "head/medical", policy) == bits_of(coarse, "head/medical")
    configured = secure_plan(COARSE, "compression.bits=9")
    assert bits_of(configured, "fusion") == 9
    assert bits_of(configured, "fusion", policy) == 11


def test_proven_mechanisms_and_counts_take_the_terms_bound():
    proven = secure_plan(COARSE, "privacy.mechanism=skellam")
    records = sum(p.specimens for p in proven.participants)
    assert not grid_of(proven, 1).is_coarse("fusion")
    assert bits_of(proven, "fusion") == proven.privacy.modulus_bits(records)
    counted = secure_plan(COARSE, ADAPTIVE, "compression.bits=5")
    assert not grid_of(counted, 1).is_coarse(COUNT)
    assert bits_of(counted, COUNT) == counted.privacy.count_bits(records)
    assert bits_of(counted, "fusion") == 5


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
        bits = bits_of(plan, block)
        wide = summed(plan, inputs, released=chosen(block, 32))
        np.testing.assert_array_equal(total, wide[block])
        assert np.abs(total).max() < 2 ** (bits - 1)
    # Negative control: the bound is not generous by more than two bits where records prevail.
    if sigma == 0.05:
        least = summed(plan, inputs, released=chosen("fusion", bits_of(plan, "fusion") - 2))
        assert np.any(least["fusion"] != held["fusion"])


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
    grid = grid_of(plan, 1)
    means = mean_gradients(summed(plan, inputs), plan.owners, grid, sizes)
    for block, total in true_sums(inputs).items():
        specimens = sum(plan.by_name[name].specimens for name in plan.owners[block])
        assert grid.expected_batch(plan.owners[block]) == pytest.approx(0.5 * specimens)
        mean = (total / (0.5 * specimens)).astype(np.float32)
        lifted = plan.coding.lift(mean, block, sizes[block], 1)
        assert means[block].shape == (sizes[block],)
        np.testing.assert_allclose(means[block], lifted, atol=2e-3)
        if codec != "modint" and block != "head/medical":
            assert total.size < sizes[block] or total.size == sizes[block] <= 256
