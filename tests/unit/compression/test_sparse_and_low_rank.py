"""Top-k with its indices, low-rank factors, error feedback, and settings that are refused."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from fedfuse_ray.compression import CODECS, Context, Setting, ef14, ef21, rice
from fedfuse_ray.compression.topk import largest, num_kept
from fedfuse_ray.errors import InputError, ProtocolError

CONTEXT = Context(3, 1, "fusion", "mat-02")


def vector_of(size, seed=0):
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


def round_trip(name, vector, setting, context=CONTEXT):
    codec = CODECS[name]
    payload = codec.encode(vector, setting, context)
    return codec.decode(payload, vector.size, setting, context), payload


def squared(vector):
    return float(np.square(vector.astype(np.float64)).sum())


def test_the_largest_are_kept_and_of_equal_ones_the_first():
    np.testing.assert_array_equal(largest(np.float32([1, -5, 3, 5, 0]), 2), [1, 3])
    np.testing.assert_array_equal(largest(np.float32([2, 7, -2, 2, 2]), 3), [0, 1, 2])
    np.testing.assert_array_equal(largest(np.zeros(5, np.float32), 2), [0, 1])
    np.testing.assert_array_equal(largest(np.float32([3, 1]), 2), [0, 1])


@pytest.mark.parametrize(("size", "fraction", "kept"), [(1, 0.1, 1), (4, 0.1, 1), (100, 0.25, 25)])
def test_how_many_are_kept(size, fraction, kept):
    setting = Setting(fraction=fraction)
    assert num_kept(size, setting) == kept
    vector = vector_of(size)
    decoded, _ = round_trip("topk", vector, Setting(fraction=fraction, bits=16))
    assert np.count_nonzero(decoded) == kept
    chosen = np.argsort(-np.abs(vector))[:kept]
    np.testing.assert_allclose(decoded[chosen], vector[chosen], rtol=1e-3)


@pytest.mark.parametrize("bits", [2, 4, 8, 12, 16, 32])
def test_topk_contracts_up_to_its_rounding(bits):
    vector = np.random.default_rng(1).uniform(0.9, 1.1, 1000).astype(np.float32)  # the worst case
    decoded, _ = round_trip("topk", vector, Setting(fraction=0.1, bits=bits))
    step = float(vector.max()) / (2 ** (min(bits, 12) - 1) - 1)
    bound = 0.9 * squared(vector) + 100 * (step / 2) ** 2
    assert squared(vector - decoded) <= bound
    assert squared(vector - decoded) > 0.85 * squared(vector)  # so the bound is not idle


@pytest.mark.parametrize("fraction", [0.001, 0.01, 0.1, 0.5])
def test_rice_codes_come_close_to_the_entropy(fraction):
    size = 100_000
    count = int(size * fraction)
    chosen = np.sort(np.random.default_rng(0).permutation(size)[:count])
    code = rice.encode(chosen, size)
    np.testing.assert_array_equal(rice.decode(code, count, size), chosen)
    entropy = math.log2(math.e) * (
        math.lgamma(size + 1) - math.lgamma(count + 1) - math.lgamma(size - count + 1)
    )
    assert entropy <= 8 * len(code) <= 1.06 * entropy + 16 or fraction == 0.5
    assert 8 * len(code) <= 1.51 * size


def test_indices_in_a_run_cost_a_bit_each():
    run = np.arange(5000, 9000)
    assert len(rice.encode(run, 1_000_000)) < 4000 / 8 * 1.1 + 5000 / 8


@pytest.mark.parametrize(
    ("code", "count", "size"),
    [
        (b"", 1, 10),  # nothing
        (b"\x00", 1, 10),  # no unary part
        (b"\x21\x80", 1, 10),  # 33 low bits
        (b"\x00\x00", 1, 10),  # no index
        (b"\x00\xc0", 1, 10),  # two where one was promised
        (b"\x00\x80\x00", 1, 10),  # something behind
        (b"\x00\x01", 1, 7),  # beyond the size
        (b"\x00\x11", 2, 7),
    ],
)
def test_a_broken_code_is_refused(code, count, size):
    with pytest.raises(ProtocolError):
        rice.decode(code, count, size)


def test_a_kept_value_beyond_the_scale_is_refused():
    vector = np.float32([1.0] + 9 * [0.0])
    _, payload = round_trip("topk", vector, Setting(fraction=0.1))
    with pytest.raises(ProtocolError, match="beyond its scale"):
        CODECS["topk"].decode(payload[:4] + b"\x80" + payload[5:], 10, Setting(), CONTEXT)


def low_rank(rows, columns, rank):
    return (vector_of(rows * rank).reshape(rows, rank) @ vector_of(rank * columns, 1).reshape(
        rank, columns
    )).reshape(-1)  # fmt: skip


def test_powersgd_is_exact_on_low_rank_and_sends_small_tensors_whole():
    shapes = ((16, 4, 5), (7,), (30, 12), (2, 2), ())
    context = Context(0, 1, "fusion", shapes=shapes)
    parts = [low_rank(16, 20, 2), vector_of(7), low_rank(30, 12, 2), vector_of(4), vector_of(1)]
    vector = np.concatenate(parts).astype(np.float32)
    decoded, payload = round_trip("powersgd", vector, Setting(rank=2), context)
    np.testing.assert_allclose(decoded, vector, atol=5e-3 * np.abs(vector).max())
    numbers = 2 * (16 + 20) + 7 + 2 * (30 + 12) + 4 + 1
    assert len(payload) == 2 * numbers + 4 * (2 + 1 + 2 + 1 + 1)


def test_powersgd_is_close_to_the_best_of_its_rank():
    matrix = vector_of(40 * 60).reshape(40, 60) @ np.diag(0.8 ** np.arange(60))
    vector = matrix.astype(np.float32).reshape(-1)
    contexts = [Context(0, round, "fusion", shapes=((40, 60),)) for round in range(20)]
    for rank in (1, 3, 8):
        best = float(np.square(np.linalg.svd(matrix, compute_uv=False)[rank:]).sum())
        errors = [
            squared(round_trip("powersgd", vector, Setting(rank=rank), context)[0] - vector)
            for context in contexts
        ]
        assert min(errors) >= best * (1 - 1e-5)
        assert np.mean(errors) < 1.4 * best


def test_powersgd_contracts_without_shapes():
    for size in (5, 30, 1000, 1013):
        vector = vector_of(size)
        decoded, _ = round_trip("powersgd", vector, Setting(rank=1))
        assert squared(decoded - vector) < squared(vector)


def test_shapes_of_another_block_are_refused():
    context = Context(0, 1, "fusion", shapes=((3, 4),))
    with pytest.raises(InputError, match="fusion hold 13 entries"):
        CODECS["powersgd"].encode(vector_of(13), Setting(), context)


@pytest.mark.parametrize("name", ["topk", "powersgd", "rot1bit"])
def test_ef14_owes_nothing_in_the_end(name):
    setting, memory, sent, given = Setting(fraction=0.2), None, np.zeros(300), np.zeros(300)
    for round in range(8):
        context, vector = Context(0, round, "b", "i"), vector_of(300, round)
        payload, memory = ef14(CODECS[name], vector, memory, setting, context)
        sent += CODECS[name].decode(payload, 300, setting, context)
        given += vector
    np.testing.assert_allclose(sent + memory, given, atol=1e-5)
    assert np.abs(memory).max() > 0.1


@pytest.mark.parametrize("name", ["topk", "powersgd"])
def test_ef21_comes_to_hold_a_vector_that_stays(name):
    codec, setting, vector = CODECS[name], Setting(fraction=0.2), vector_of(300)
    memory, server, errors = None, np.zeros(300, np.float32), []
    for round in range(30):
        context = Context(0, round, "b", "i")
        payload, memory = ef21(codec, vector, memory, setting, context)
        server = server + codec.decode(payload, 300, setting, context)
        np.testing.assert_array_equal(server, memory)
        errors.append(squared(vector - memory))
    assert errors[0] > 0.3 * squared(vector)
    assert errors[-1] < 0.01 * squared(vector)
    assert all(after <= before for before, after in itertools.pairwise(errors))


@pytest.mark.parametrize(
    ("field", "value"),
    [("bits", 0), ("bits", 33), ("fraction", 0.0), ("fraction", 1.5), ("rank", 0),
     ("smallest", 0), ("reach", 0.0), ("reach", -1.0), ("reach", math.inf), ("reach", math.nan)],
)  # fmt: skip
def test_a_setting_out_of_range_is_refused(field, value):
    with pytest.raises(InputError, match=field):
        Setting(**{field: value})
