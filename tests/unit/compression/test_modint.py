"""The integer grid: rounding, saturation, and sums modulo 2^bits."""

from __future__ import annotations

import numpy as np
import pytest

from fedfuse_ray.compression import CODECS, Context, Setting
from fedfuse_ray.compression.modint import from_words, most_levels, rotated, to_words, unrotated
from fedfuse_ray.errors import InputError, ProtocolError
from fedfuse_ray.packing import pack, unpack, word_dtype

CONTEXT = Context(3, 1, "fusion", "mat-02")
MODINT = CODECS["modint"]


def stream(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("bits", range(2, 33))
def test_words_lie_within_a_step_and_come_back(bits):
    levels = most_levels(bits)
    vector = stream(bits).uniform(-1, 1, 3000).astype(np.float32)
    vector[:2] = -1.0, 1.0
    step = 1.0 / levels
    words = to_words(vector, step, bits, stream())
    assert words.dtype == word_dtype(bits)
    assert int(words.max()) < 1 << bits
    decoded = from_words(words, step, bits)
    np.testing.assert_allclose(decoded, vector, atol=step + 1e-7)
    np.testing.assert_array_equal(decoded[:2], np.float32([-1, 1]))
    np.testing.assert_array_equal(unpack(pack(words, bits), 3000, bits), words)


def test_rounding_is_fair():
    step, value = 0.25, 0.35
    decoded = from_words(to_words(np.full(100_000, value, np.float32), step, 8, stream()), step, 8)
    assert set(np.unique(decoded)) == {np.float32(0.25), np.float32(0.5)}
    # The standard deviation of the mean is 0.25 * sqrt(0.4 * 0.6 / 100,000) = 0.0004.
    assert decoded.mean(dtype=np.float64) == pytest.approx(value, abs=0.002)


def test_larger_entries_are_cut():
    vector = np.array([-9.0, 9.0, 0.5], np.float32)
    np.testing.assert_array_equal(
        from_words(to_words(vector, 0.5, 4, stream()), 0.5, 4), np.float32([-3.5, 3.5, 0.5])
    )
    few = from_words(to_words(vector, 0.5, 4, stream(), levels=2), 0.5, 4)
    np.testing.assert_array_equal(few, np.float32([-1.0, 1.0, 0.5]))


@pytest.mark.parametrize("bits", [5, 8, 11, 16, 24, 32])
def test_a_sum_within_the_modulus_is_exact_and_one_beyond_wraps(bits):
    levels, institutions = most_levels(bits) // 4, 4
    rows = stream(bits).uniform(-levels, levels, (institutions, 500)).astype(np.float32)
    words = [to_words(row, 1.0, bits, stream(i), levels) for i, row in enumerate(rows)]
    apart = sum(from_words(w, 1.0, bits).astype(np.float64) for w in words)
    total = np.sum([w.astype(np.uint64) for w in words], axis=0) % (1 << bits)
    together = from_words(total.astype(word_dtype(bits)), 1.0, bits)
    np.testing.assert_allclose(together, apart, rtol=1e-7)
    full = np.full(10, levels + 1, np.float32)
    words = [to_words(full, 1.0, bits, stream(i)) for i in range(institutions)]
    total = np.sum([w.astype(np.uint64) for w in words], axis=0) % (1 << bits)
    assert (from_words(total.astype(word_dtype(bits)), 1.0, bits) < 0).all()


def test_institutions_share_the_rotation_and_not_the_rounding():
    other = Context(3, 1, "fusion", "env-01")
    vector = stream().standard_normal(500).astype(np.float32)
    np.testing.assert_array_equal(rotated(vector, CONTEXT), rotated(vector, other))
    np.testing.assert_allclose(unrotated(rotated(vector, CONTEXT), other), vector, atol=1e-5)
    for elsewhere in (Context(4, 1, "fusion"), Context(3, 2, "fusion"), Context(3, 1, "head/x")):
        assert np.abs(rotated(vector, elsewhere) - rotated(vector, CONTEXT)).max() > 0.1
    setting = Setting(bits=4, reach=4.0)
    assert MODINT.encode(vector, setting, CONTEXT) != MODINT.encode(vector, setting, other)


def test_a_public_reach_cuts_and_a_private_one_does_not():
    vector = stream().standard_normal(2000).astype(np.float32)
    size = vector.size

    def error(setting):
        decoded = MODINT.decode(MODINT.encode(vector, setting, CONTEXT), size, setting, CONTEXT)
        return float(np.square(decoded - vector).mean())

    assert error(Setting(bits=12)) < 1e-5
    assert error(Setting(bits=12, reach=10.0)) < 1e-5
    assert error(Setting(bits=12, reach=1.0)) > 0.05
    assert len(MODINT.encode(vector, Setting(reach=1.0), CONTEXT)) == size
    assert len(MODINT.encode(vector, Setting(), CONTEXT)) == size + 4


def test_one_bit_is_no_grid():
    for call in (lambda: MODINT.encode(np.ones(4, np.float32), Setting(bits=1), CONTEXT),):
        with pytest.raises(InputError, match=r"compression\.bits"):
            call()


def test_a_reach_beyond_all_numbers_is_refused():
    payload = np.float32(1e38).tobytes() + bytes(200)
    with pytest.raises(ProtocolError, match="absurd"):
        MODINT.decode(payload, 200, Setting(), CONTEXT)
