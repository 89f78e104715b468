"""The rotation is orthonormal at any size, and hides what a vector looked like."""

from __future__ import annotations

import numpy as np
import pytest

from fedfuse_ray.compression.rotation import rotate, unrotate

SIZES = [1, 2, 3, 7, 64, 127, 128, 129, 200, 255, 257, 1000, 1023, 4097, 16384, 33001]


def stream(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("size", [1, 5, 127, 128, 200, 257, 515])
def test_the_whole_matrix_is_orthonormal(size):
    matrix = np.stack([rotate(unit, stream()) for unit in np.eye(size, dtype=np.float32)])
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(size), atol=2e-6)


@pytest.mark.parametrize("size", SIZES)
def test_it_comes_back(size):
    vector = stream(9).standard_normal(size).astype(np.float32)
    rotated = rotate(vector, stream())
    assert (rotated.dtype, rotated.shape) == (np.float32, (size,))
    np.testing.assert_allclose(unrotate(rotated, stream()), vector, atol=1e-5)
    assert np.linalg.norm(rotated) == pytest.approx(np.linalg.norm(vector), rel=1e-5)
    if size > 3:
        assert np.abs(unrotate(rotated, stream(1)) - vector).max() > 0.1


def hostile(size):
    half = np.zeros(size)
    half[: size // 2] = 1.0
    for place in (0, -1, size // 2):
        spike = np.zeros(size)
        spike[place] = 1.0
        yield f"spike at {place}", spike
    for name, places in {"start": slice(size // 100), "end": slice(-(size // 100), None)}.items():
        block = np.zeros(size)
        block[places] = 1.0
        yield f"block at the {name}", block
    yield "constant", np.ones(size)
    yield "half", half
    yield "every other", np.arange(size) % 2.0
    yield "every 64th", (np.arange(size) % 64 == 0).astype(float)
    yield "alternating", 1.0 - 2.0 * (np.arange(size) % 2)


def unevenness(rotated):
    """Largest entry over a Gaussian's, kurtosis, and the spread of energy over pieces."""
    size = rotated.size
    values = rotated.astype(np.float64) * np.sqrt(size) / np.linalg.norm(rotated)
    pieces = [*np.array_split(values, 8), *(values[start::8] for start in range(8))]
    energies = [np.square(piece).mean() for piece in pieces]
    peak = np.abs(values).max() / np.sqrt(2 * np.log(2 * size))
    return peak, float((values**4).mean()), max(energies), min(energies)


@pytest.mark.parametrize("size", [4096, 4097, 8191, 16383, 16384, 20011, 100_003])
def test_entries_have_one_scale_whatever_the_vector(size):
    for name, vector in hostile(size):
        rotated = rotate(vector.astype(np.float32), stream(size))
        peak, kurtosis, most, least = unevenness(rotated)
        assert peak < 1.5, name  # a Gaussian's would be about 1
        assert kurtosis < 5.5, name  # a Gaussian's is 3
        assert most < 2.0, name
        assert least > 0.2, name  # a piece of a short block's image has few distinct entries


def test_that_check_finds_a_rotation_that_leaves_a_part_alone():
    vector = np.zeros(4096, np.float32)
    vector[-1] = 1.0
    # Only the first half is rotated.
    rotated = np.concatenate([rotate(vector[:2048] + 0.001, stream()), vector[2048:]])
    peak, kurtosis, most, _ = unevenness(rotated)
    assert peak > 1.5
    assert kurtosis > 5.5
    assert most > 2.0


@pytest.mark.parametrize("size", [512, 520, 767, 770, 1023])
def test_every_entry_has_nearly_the_same_variance(size):
    rows = [slice(r * (size // 16), (r + 1) * (size // 16)) for r in range(16)]
    for place in (0, size // 2, size - 1):
        spike = np.zeros(size, np.float32)
        spike[place] = 1.0
        squares = np.mean([np.square(rotate(spike, stream(n))) for n in range(60)], axis=0) * size
        means = np.array([squares[row].mean() for row in rows])
        # 60 times 32 draws or more: a mean is off by 0.03 or so, beyond the variance's own bound.
        assert np.abs(means - 1).max() < 3 / 16 + 48 / size + 0.12, place
        assert squares[size - size % 16 :].max(initial=0) < 3 * 2.2


def test_the_input_is_left_alone():
    vector = stream().standard_normal(1000).astype(np.float32)
    before = vector.copy()
    unrotate(rotate(vector, stream()), stream())
    np.testing.assert_array_equal(vector, before)
