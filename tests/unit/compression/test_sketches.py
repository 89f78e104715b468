"""Projections: orthonormal rows, fixed or fresh maps, the median, and the same map in torch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from fedfuse_ray.compression import CODECS, Context, Setting
from fedfuse_ray.compression.projection import num_coordinates

CONTEXT = Context(3, 1, "fusion", "mat-02")
SETTING = Setting(fraction=0.1, smallest=16)
SKETCHES = ("subspace", "countsketch")


def vector_of(size, seed=0):
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


def dense(projection):
    """P as a matrix, from nothing but the public arrays."""
    matrix = np.zeros((projection.coordinates, projection.size))
    for row, (index, signs) in enumerate(zip(projection.index, projection.signs, strict=True)):
        matrix[row * projection.width + index, np.arange(projection.size)] = signs
    return matrix


@pytest.mark.parametrize(
    ("size", "fraction", "smallest", "expected"),
    [(1000, 0.1, 64, 100), (1000, 0.01, 64, 64), (30, 0.1, 64, 30), (30, 1.0, 1, 30),
     (30, 0.1, 1, 3), (1001, 0.1, 1, 101), (1, 0.1, 1, 1)],
)  # fmt: skip
def test_how_many_coordinates(size, fraction, smallest, expected):
    assert num_coordinates(size, Setting(fraction=fraction, smallest=smallest)) == expected


@pytest.mark.parametrize("name", SKETCHES)
@pytest.mark.parametrize("size", [10, 100, 501])
def test_project_and_lift_are_the_matrix_and_its_transpose(name, size):
    projection = CODECS[name].projection(size, SETTING, CONTEXT)
    matrix, vector = dense(projection), vector_of(size)
    assert projection.index.dtype == np.int64
    assert projection.signs.dtype == np.float32
    np.testing.assert_allclose(projection.project(vector), matrix @ vector, atol=1e-5)
    y = vector_of(projection.coordinates, 1)
    np.testing.assert_allclose(projection.lift(y), matrix.T @ y, atol=1e-5)
    assert projection.project(vector).dtype == projection.lift(y).dtype == np.float32


@pytest.mark.parametrize("name", SKETCHES)
def test_torch_scatters_to_the_same_coordinates(name):
    projection = CODECS[name].projection(300, SETTING, CONTEXT)
    gradients = np.stack([vector_of(300, seed) for seed in range(4)])
    out = torch.zeros(4, projection.coordinates)
    for row in range(len(projection.index)):
        places = torch.from_numpy(projection.index[row] + row * projection.width)
        out.index_add_(
            1, places, torch.from_numpy(gradients) * torch.from_numpy(projection.signs[row])
        )
    for found, gradient in zip(out.numpy(), gradients, strict=True):
        np.testing.assert_allclose(found, projection.project(gradient), atol=1e-5)


@pytest.mark.parametrize("size", [17, 100, 1003])
def test_subspace_rows_are_orthonormal_and_buckets_equal(size):
    projection = CODECS["subspace"].projection(size, SETTING, CONTEXT)
    matrix = dense(projection)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(len(matrix)), atol=1e-6)
    members = np.bincount(projection.index[0])
    assert members.max() - members.min() <= 1
    assert members.size == num_coordinates(size, SETTING)


def test_subspace_decodes_to_the_orthogonal_projection():
    codec, vector = CODECS["subspace"], vector_of(1003)
    matrix = dense(codec.projection(1003, SETTING, CONTEXT))
    once = codec.decode(codec.encode(vector, SETTING, CONTEXT), 1003, SETTING, CONTEXT)
    np.testing.assert_allclose(once, matrix.T @ (matrix @ vector), atol=1e-5)
    twice = codec.decode(codec.encode(once, SETTING, CONTEXT), 1003, SETTING, CONTEXT)
    np.testing.assert_allclose(twice, once, atol=1e-5)


def maps(name, **changes):
    changed = dataclasses.replace(CONTEXT, **changes)
    one, other = (CODECS[name].projection(500, SETTING, c) for c in (CONTEXT, changed))
    return np.array_equal(one.index, other.index) and np.array_equal(one.signs, other.signs)


def test_a_subspace_lasts_and_a_count_sketch_changes():
    assert maps("subspace", round=9)
    assert not maps("countsketch", round=9)
    for name in SKETCHES:
        assert maps(name, institution="env-01")
        assert not maps(name, block="head/x")
        assert not maps(name, seed=4)


def test_a_count_sketch_finds_the_few_large_entries():
    codec, setting = CODECS["countsketch"], Setting(fraction=0.2)
    vector = 0.01 * vector_of(5000)
    places = [3, 999, 2500, 4999]
    vector[places] = 10.0, -20.0, 30.0, -40.0
    decoded = codec.decode(codec.encode(vector, setting, CONTEXT), 5000, setting, CONTEXT)
    np.testing.assert_allclose(decoded[places], vector[places], rtol=0.05)


def test_the_median_of_a_count_sketch_is_the_median():
    codec = CODECS["countsketch"]
    projection = codec.projection(200, SETTING, CONTEXT)
    y = vector_of(projection.coordinates)
    table = y.reshape(3, -1)
    said = [
        3 * signs * row[index]
        for index, signs, row in zip(projection.index, projection.signs, table, strict=True)
    ]
    np.testing.assert_allclose(codec.lift(y, projection), np.median(said, axis=0), rtol=1e-5)


def test_a_count_sketch_keeps_norms_on_average():
    vector = vector_of(500)
    contexts = [dataclasses.replace(CONTEXT, round=round) for round in range(200)]
    found = [
        np.square(CODECS["countsketch"].projection(500, SETTING, c).project(vector)).sum()
        for c in contexts
    ]
    # Over contexts the squared norm varies by sqrt(2 / 54) = 19%, its mean over 200 by 1.4%.
    assert np.mean(found) == pytest.approx(np.square(vector).sum(), rel=0.06)
