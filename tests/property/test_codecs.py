"""Codecs on any vector of any size: inverses, contraction, exact sums, and codes of indices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedfuse_ray.compression import CODECS, Context, Setting, rice
from fedfuse_ray.compression.modint import from_words, most_levels, to_words
from fedfuse_ray.compression.rotation import rotate, unrotate
from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.packing import word_dtype

SEEDS = st.integers(0, 2**32)


@st.composite
def vectors(draw, largest=700):
    """Vectors with a mixture of scales, zeros and repeats."""
    random = np.random.default_rng(draw(SEEDS))
    size = draw(st.integers(1, largest))
    vector = random.standard_normal(size) * 10.0 ** random.uniform(-4, 4, size)
    vector[random.random(size) < draw(st.sampled_from([0.0, 0.5, 1.0]))] = 0.0
    if draw(st.booleans()):
        vector = np.round(vector)
    return vector.astype(np.float32)


def squared(vector):
    return float(np.square(vector.astype(np.float64)).sum())


@settings(max_examples=80, deadline=None)
@given(vector=vectors(), seed=SEEDS)
def test_a_rotation_keeps_the_norm_and_is_undone(vector, seed):
    rotated = rotate(vector, np.random.default_rng(seed))
    assert squared(rotated) == pytest.approx(squared(vector), rel=1e-5)
    back = unrotate(rotated, np.random.default_rng(seed))
    np.testing.assert_allclose(back, vector, atol=1e-5 * np.sqrt(squared(vector)) + 1e-12)


@settings(max_examples=80, deadline=None)
@given(vector=vectors(), fraction=st.floats(0.01, 1.0), bits=st.integers(2, 18))
def test_topk_loses_at_most_the_share_that_it_drops(vector, fraction, bits):
    setting, context = Setting(fraction=fraction, bits=bits), Context(0, 0, "b")
    payload = CODECS["topk"].encode(vector, setting, context)
    decoded = CODECS["topk"].decode(payload, vector.size, setting, context)
    kept = min(vector.size, max(1, round(fraction * vector.size)))
    assert np.count_nonzero(decoded) <= kept
    step = float(np.abs(vector).max()) / (2 ** (min(bits, 10) - 1) - 1)
    bound = (1 - kept / vector.size) * squared(vector) + kept * (step / 2) ** 2
    assert squared(decoded - vector) <= bound * (1 + 1e-5) + 1e-30


@settings(max_examples=80, deadline=None)
@given(vector=vectors(), fraction=st.floats(0.01, 1.0), smallest=st.integers(1, 64))
def test_a_subspace_never_lengthens_and_leaves_a_right_angle(vector, fraction, smallest):
    setting, context = Setting(fraction=fraction, smallest=smallest), Context(0, 0, "b")
    payload = CODECS["subspace"].encode(vector, setting, context)
    decoded = CODECS["subspace"].decode(payload, vector.size, setting, context).astype(np.float64)
    assert len(payload) <= 4 * vector.size
    assert abs(decoded @ (vector - decoded)) <= 1e-5 * squared(vector)
    assert squared(decoded) <= squared(vector) * (1 + 1e-5)


@settings(max_examples=80, deadline=None)
@given(vector=vectors(), bits=st.integers(2, 16), data=st.data())
def test_modint_is_off_by_less_than_a_step_an_entry(vector, bits, data):
    setting, context = Setting(bits=bits), Context(data.draw(SEEDS), 0, "b")
    payload = CODECS["modint"].encode(vector, setting, context)
    decoded = CODECS["modint"].decode(payload, vector.size, setting, context)
    reach = float(np.frombuffer(payload[:4], "<f4")[0])
    step = reach / most_levels(bits)
    assert reach <= np.sqrt(squared(vector)) * (1 + 1e-5)
    error = np.sqrt(squared(decoded - vector))
    assert error <= np.sqrt(vector.size) * step + 1e-5 * np.sqrt(squared(vector)) + 1e-12


@settings(max_examples=80, deadline=None)
@given(
    seed=SEEDS,
    bits=st.integers(4, 32),
    institutions=st.integers(1, 7),
    size=st.integers(1, 80),
)
def test_words_add_up_exactly_while_there_is_room(seed, bits, institutions, size):
    random = np.random.default_rng(seed)
    levels = most_levels(bits) // institutions
    rows = random.uniform(-1.5 * levels, 1.5 * levels, (institutions, size)).astype(np.float32)
    words = [to_words(row, 1.0, bits, random, levels) for row in rows]
    total = np.sum([w.astype(np.uint64) for w in words], axis=0) % (1 << bits)
    together = from_words(total.astype(word_dtype(bits)), 1.0, bits)
    apart = np.sum([from_words(w, 1.0, bits).astype(np.float64) for w in words], axis=0)
    # Beyond 2^24 a float32 does not hold every integer.
    np.testing.assert_allclose(together, apart, rtol=2e-7 * institutions, atol=2.0 ** (bits - 25))


@settings(max_examples=150, deadline=None)
@given(seed=SEEDS, size=st.integers(1, 3000), fraction=st.floats(0, 1), clustered=st.booleans())
def test_indices_come_back_from_their_code(seed, size, fraction, clustered):
    random = np.random.default_rng(seed)
    count = max(1, round(fraction * size))
    if clustered:
        start = int(random.integers(0, size - count + 1))
        indices = np.arange(start, start + count)
    else:
        indices = np.sort(random.permutation(size)[:count])
    code = rice.encode(indices, size)
    np.testing.assert_array_equal(rice.decode(code, count, size), indices)
    with pytest.raises(ProtocolError):
        rice.decode(code[:-1], count, size)


@settings(max_examples=200, deadline=None)
@given(code=st.binary(max_size=40), count=st.integers(1, 60), size=st.integers(1, 500))
def test_any_bytes_are_refused_or_are_indices(code, count, size):
    try:
        indices = rice.decode(code, count, size)
    except ProtocolError:
        return
    assert indices.size == count
    assert indices[0] >= 0
    assert indices[-1] < size
    assert (np.diff(indices) > 0).all()


@pytest.mark.parametrize("name", sorted(CODECS))
@settings(max_examples=25, deadline=None)
@given(payload=st.binary(max_size=120), size=st.integers(1, 60))
def test_any_bytes_are_refused_or_are_a_vector(name, payload, size):
    try:
        decoded = CODECS[name].decode(payload, size, Setting(smallest=4), Context(0, 0, "b"))
    except ProtocolError:
        return
    assert decoded.shape == (size,)
    assert np.isfinite(decoded).all()
