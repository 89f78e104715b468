"""The subspace over tensors' axes, and per-record gradients that are sketched before the clip."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from fedfuse_ray.compression.codec import Context, Setting
from fedfuse_ray.compression.countsketch import CountSketch
from fedfuse_ray.compression.projection import identity
from fedfuse_ray.compression.subspace import Subspace
from fedfuse_ray.config.settings.privacy import PrivacyConfig
from fedfuse_ray.federation.institution.private_gradients import clipped_gradient_sum, joint_step
from fedfuse_ray.federation.plan.terms import COUNT, PrivacyTerms, Release
from fedfuse_ray.privacy.mechanisms.clipping import JOINT
from fedfuse_ray.privacy.randomness import derived
from tests.support.local_setup import loss_of, net_of, specimens, training_of

QUARTER = Setting(fraction=0.25, smallest=4)
KERNEL = ((6, 3, 3, 5), (6,), (40, 24), (24,), ())
CLIP = 0.3


def projected(*shapes, setting=QUARTER, block="fusion", seed=0, round=1):
    size = sum(math.prod(shape) for shape in shapes)
    return Subspace().projection(size, setting, Context(seed, round, block, "", shapes))


def dense(projection):
    """Return P as a matrix, row by row of its definition."""
    matrix = np.zeros((projection.coordinates, projection.size))
    for row, (index, signs) in enumerate(zip(projection.index, projection.signs, strict=True)):
        matrix[row * projection.width + index, np.arange(projection.size)] = signs
    return matrix


def axis(length, setting=QUARTER, seed=0):
    """Return A [length, width] of an axis, from a block that is this axis alone."""
    return dense(projected((length,), setting=setting, seed=seed)).T


@pytest.mark.parametrize("setting", [QUARTER, Setting(fraction=0.01, smallest=64)])
@pytest.mark.parametrize("shapes", [((40, 24),), ((30,),), KERNEL])
def test_rows_are_orthonormal(shapes, setting):
    matrix = dense(projected(*shapes, setting=setting))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(len(matrix)), atol=1e-6)


def test_a_matrix_is_projected_to_a_small_one_between_fixed_factors():
    projection = projected((40, 24))
    left, right = axis(40), axis(24)
    small = np.random.default_rng(0).standard_normal((20, 12))
    lifted = projection.lift(small.reshape(-1).astype(np.float32)).reshape(40, 24)
    np.testing.assert_allclose(lifted, left @ small @ right.T, atol=1e-6)
    matrix = np.random.default_rng(1).standard_normal((40, 24)).astype(np.float32)
    seen = projection.project(matrix.reshape(-1)).reshape(20, 12)
    np.testing.assert_allclose(seen, left.T @ matrix @ right, atol=1e-5)


def test_tensors_of_more_axes_are_products_of_all_of_them():
    projection = projected((16, 5, 12))
    factors = [axis(16), axis(5), axis(12)]
    np.testing.assert_allclose(
        dense(projection).T, np.kron(np.kron(factors[0], factors[1]), factors[2]), atol=1e-6
    )


def test_axes_of_equal_length_share_their_buckets_in_all_tensors_blocks_and_rounds():
    first = dense(projected((24, 40), (40,), block="encoder/ct", round=1))
    second = dense(projected((40, 10), block="head/medical", round=7))
    one, other = axis(40), axis(10)
    # The bias of 40 lies behind the matrix, with buckets of its own.
    np.testing.assert_array_equal(first[12 * 20 :, 24 * 40 :], one.T)
    assert not first[12 * 20 :, : 24 * 40].any()
    np.testing.assert_allclose(second.T, np.kron(one, other), atol=1e-6)


def test_other_lengths_and_seeds_deal_otherwise():
    assert not np.array_equal(axis(40), axis(40, seed=1))
    assert not np.array_equal(axis(40)[:36], axis(36)[:, :20] if axis(36).shape[1] > 20 else 0)
    # Without shapes the block's own name is in the stream.
    context = Context(0, 1, "fusion")
    loose = Subspace().projection(40, QUARTER, context)
    assert loose.coordinates == 10
    other = Subspace().projection(40, QUARTER, Context(0, 1, "head/medical"))
    assert not np.array_equal(loose.index, other.index)


@pytest.mark.parametrize(
    ("shape", "setting", "coordinates"),
    [
        ((40, 24), QUARTER, 20 * 12),
        ((41, 25), QUARTER, 21 * 13),  # rounded up
        ((40,), QUARTER, 20),  # an axis keeps the root of the fraction
        ((40, 24), Setting(fraction=0.0001, smallest=64), 8 * 8),
        ((40, 5), Setting(fraction=0.0001, smallest=64), 8 * 5),
        ((3, 3), Setting(fraction=0.04, smallest=1), 1),
        ((40, 24), Setting(fraction=1.0), 40 * 24),
        ((), QUARTER, 1),
    ],
)
def test_the_number_of_coordinates(shape, setting, coordinates):
    projection = projected(shape, setting=setting)
    assert projection.coordinates == coordinates
    assert projection.size == math.prod(shape)


def test_coordinates_of_a_blocks_tensors_add_up():
    each = [projected(shape).coordinates for shape in KERNEL]
    assert projected(*KERNEL).coordinates == sum(each)


@pytest.mark.parametrize("shapes", [((8, 8), (8,), ()), ((3, 7), (1,))])
def test_short_axes_are_left_as_they_are(shapes):
    projection = projected(*shapes, setting=Setting(fraction=0.01, smallest=64))
    expected = identity(projection.size)
    np.testing.assert_array_equal(projection.index, expected.index)
    np.testing.assert_array_equal(projection.signs, expected.signs)
    assert projection.width == expected.width


def test_buckets_differ_in_size_by_at_most_one():
    sizes = np.count_nonzero(axis(41, Setting(fraction=0.04, smallest=1)), axis=0)
    assert sizes.sum() == 41
    assert sizes.max() - sizes.min() <= 1


def terms_for(net, clip_norm=CLIP):
    return PrivacyTerms(
        config=PrivacyConfig(mode="record-distributed", noise_multiplier=1.0, clip_norm=clip_norm),
        factors=(1.0,) * 4,
        releases={"med-01": Release(1.0, 1.0)},
        owners={name: ("med-01",) for name in net.names},
        coordinates={"med-01": {name: stop - start for name, (start, stop) in net.offsets.items()}},
    )


def shapes_of(net):
    return {n: tuple(tuple(p.shape) for p in net.blocks[n].parameters()) for n in net.names}


def sketches_for(net, kind):
    """Return the sketches of all blocks but one, which stays as it is."""
    make = {"subspace": Subspace(), "countsketch": CountSketch()}[kind]
    setting = Setting(fraction=0.2, smallest=9)
    return {
        name: make.projection(stop - start, setting, Context(0, 1, name, "", shapes_of(net)[name]))
        for name, (start, stop) in net.offsets.items()
        if name != "head/medical"
    }


def gradients_one_by_one(net, data):
    """Return each record's gradient by block, float64 [B, P], from a batch of its own."""
    rows = []
    for row in range(len(data)):
        loss = loss_of(net, data, rows=slice(row, row + 1))[0]
        grads = torch.autograd.grad(loss, list(net.parameters()))
        rows.append(torch.cat([g.reshape(-1) for g in grads]).double().numpy())
    every = np.stack(rows)
    return {name: every[:, start:stop] for name, (start, stop) in net.offsets.items()}


def reference(net, data, sketches, clip_norm):
    """Return the clipped sums of projected gradients, and the norms before the clip."""
    parts = {
        name: rows @ dense(sketches[name]).T if name in sketches else rows
        for name, rows in gradients_one_by_one(net, data).items()
    }
    norms = np.sqrt(sum(np.square(rows).sum(axis=1) for rows in parts.values()))
    factors = np.minimum(1.0, clip_norm / norms)
    return {name: factors @ rows for name, rows in parts.items()}, norms


@pytest.fixture(scope="module")
def net():
    return net_of()


@pytest.fixture(scope="module")
def data():
    return specimens(10)


@pytest.mark.parametrize("kind", ["subspace", "countsketch"])
@pytest.mark.parametrize("clipped", [1.0, 0.5, 0.0])
def test_a_joint_step_projects_each_record_and_then_clips(net, data, kind, clipped):
    sketches = sketches_for(net, kind)
    _, norms = reference(net, data, sketches, 1.0)
    clip_norm = float(np.quantile(norms, 1 - clipped)) * (0.8 if clipped == 1.0 else 1.01)
    assert np.mean(norms > clip_norm) == clipped
    expected, _ = reference(net, data, sketches, clip_norm)
    training = training_of(net=net, data=data, dropout=0.0)
    terms = terms_for(net, clip_norm)
    update = joint_step(training, 1, terms, derived(0), sketches=sketches).update.weights
    assert list(update) == list(net.names)
    assert all(vector.dtype == np.float32 for vector in update.values())

    def distance(sums):
        """Return how far negative sums are from the update."""
        return max(np.abs(update[name] + sums[name]).max() for name in sketches) / clip_norm

    assert set(expected) == set(update)
    assert distance(expected) < 5e-4
    np.testing.assert_allclose(
        -update["head/medical"], expected["head/medical"], atol=5e-4 * clip_norm
    )
    # Negative control: clipping first, and projecting the sum, would be something else.
    clipped_first, _ = reference(net, data, {}, clip_norm)
    wrong = {name: dense(sketches[name]) @ clipped_first[name] for name in sketches}
    assert (distance(wrong) > 2e-3) == (clipped > 0 or kind == "subspace")


def norm_of(blocks):
    return math.sqrt(sum(float(np.square(v.astype(float)).sum()) for v in blocks.values()))


@pytest.mark.parametrize("kind", ["subspace", "countsketch"])
def test_a_record_moves_the_sum_of_sketches_by_at_most_the_clip(net, data, kind):
    sketches = sketches_for(net, kind)
    training = training_of(net=net, data=data, dropout=0.0)

    def total(rows):
        generator = np.random.default_rng(0)
        return clipped_gradient_sum(
            training, torch.tensor(rows), generator, {JOINT: CLIP}, None, sketches
        )[0]

    whole = total(range(len(data)))
    lengths = []
    for row in range(len(data)):
        rest = total([r for r in range(len(data)) if r != row])
        lengths.append(norm_of({n: whole.sums[n] - rest.sums[n] for n in whole.sums}))
        assert norm_of(total([row]).sums) <= CLIP
    assert max(lengths) <= CLIP * (1 + 1e-5)
    # The clip is used up by records that are longer in the sketched space.
    clipped = whole.norms[JOINT] > CLIP
    assert clipped.any()
    np.testing.assert_allclose(np.array(lengths)[clipped], CLIP, rtol=1e-3)
    _, norms = reference(net, data, sketches, CLIP)
    np.testing.assert_allclose(whole.norms[JOINT], norms, rtol=1e-4)


def test_a_projection_never_lengthens_a_gradient_but_a_count_sketch_may(net, data):
    _, plain = reference(net, data, {}, CLIP)
    _, within = reference(net, data, sketches_for(net, "subspace"), CLIP)
    assert np.all(within <= plain * (1 + 1e-6))
    assert np.all(within < 0.9 * plain)


def test_no_records_give_sums_of_the_sketches_size(net, data):
    sketches = sketches_for(net, "subspace")
    training = training_of(net=net, data=data)
    empty = torch.zeros(0, dtype=torch.int64)
    clipped, loss = clipped_gradient_sum(
        training, empty, np.random.default_rng(0), {JOINT: CLIP}, None, sketches
    )
    for name, (start, stop) in net.offsets.items():
        size = sketches[name].coordinates if name in sketches else stop - start
        np.testing.assert_array_equal(clipped.sums[name], np.zeros(size, np.float32))
    assert loss == 0.0


def test_only_an_adaptive_norm_adds_a_count(net, data):
    training = training_of(net=net, data=data, dropout=0.0)
    fixed = joint_step(training, 1, terms_for(net), derived(0))
    moved = joint_step(training, 1, terms_for(net), derived(0), clip_norm=2.0)
    assert COUNT not in fixed.update.weights
    _, norms = reference(net, data, {}, 2.0)
    count = float(moved.update.weights[COUNT][0])
    assert count == pytest.approx(np.sum(norms <= 2.0) - len(data) / 2)
    pairs = itertools.product(net.names, (fixed, moved))
    assert all(np.isfinite(result.update.weights[name]).all() for name, result in pairs)
