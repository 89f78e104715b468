"""What every codec keeps to: sizes, determinism, distortion, and bad payloads."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from fedfuse_ray.compression import CODECS, Context, Setting
from fedfuse_ray.config.settings.compression import LINEAR_CODECS, CompressionConfig
from fedfuse_ray.errors import InputError, ProtocolError

SIZES = (1, 2, 3, 7, 64, 127, 128, 1000, 4097)
CONTEXT = Context(seed=1, round=2, block="encoder/ct", institution="med-01")
SETTING = Setting(bits=8, fraction=0.1, rank=2, smallest=64)
SIZE = 4096

# Squared error over squared norm: at most this on Gaussian and on heavy-tailed entries (Student's t
# with 3 degrees of freedom). A fixed projection keeps its share; a count sketch is a multiple.
NMSE = {
    "fp32": (0.0, 0.0),
    "fp16": (1e-7, 1e-7),
    "modint": (3e-4, 3e-4),
    "subspace": (0.93, 0.97),
    "countsketch": (15.0, 15.0),
    "rot1bit": (0.60, 0.60),
    "topk": (0.60, 0.50),
    "powersgd": (0.95, 0.97),
}

# Stronger first: the squared error must fall from each to the next.
LADDERS = {
    "modint": [Setting(bits=bits) for bits in (2, 3, 4, 6, 8, 12, 16, 20)],
    "subspace": [Setting(fraction=f) for f in (0.02, 0.1, 0.3, 0.6, 1.0)],
    "countsketch": [Setting(fraction=f) for f in (0.05, 0.2, 0.8, 1.0)],
    "rot1bit": [Setting(signs=f) for f in (0.1, 0.3, 0.85, 1.0)],
    "topk": [Setting(fraction=f) for f in (0.01, 0.1, 0.3, 0.6, 1.0)],
    "powersgd": [Setting(rank=rank) for rank in (1, 2, 4, 8, 16, 64)],
}


@pytest.fixture(params=sorted(CODECS))
def codec(request):
    return CODECS[request.param]


def gaussian(size, seed=0):
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


def heavy(size, seed=0):
    return np.random.default_rng(seed).standard_t(3, size).astype(np.float32)


def awkward(size):
    """Vectors that codecs stumble over, by name."""
    spike = np.zeros(size, np.float32)
    spike[-1] = -3.0
    block = np.zeros(size, np.float32)
    block[: max(1, size // 100)] = 1e3
    return {
        "zeros": np.zeros(size, np.float32),
        "constant": np.full(size, -0.25, np.float32),
        "spike": spike,
        "block": block,
        "gaussian": gaussian(size),
        "heavy": heavy(size),
        "tiny": gaussian(size) * np.float32(1e-25),
        "denormal": np.full(size, 1e-42, np.float32),
        "huge": gaussian(size) * np.float32(1e29),
    }


def squared(vector):
    return float(np.square(vector.astype(np.float64)).sum())


def nmse(codec, vector, setting=SETTING, context=CONTEXT):
    payload = codec.encode(vector, setting, context)
    decoded = codec.decode(payload, vector.size, setting, context)
    return squared(decoded.astype(np.float64) - vector) / squared(vector)


def test_every_codec_of_the_config_is_there():
    schema = CompressionConfig.model_json_schema()["properties"]["codec"]
    assert set(schema["enum"]) == set(CODECS)
    assert {name for name, codec in CODECS.items() if codec.linear} == LINEAR_CODECS
    assert {codec.name: codec for codec in CODECS.values()} == CODECS
    assert all(len(codec.paper) > 10 for codec in CODECS.values())


@pytest.mark.parametrize("size", SIZES)
def test_any_vector_comes_back_with_its_size(codec, size):
    for name, vector in awkward(size).items():
        before = vector.copy()
        payload = codec.encode(vector, SETTING, CONTEXT)
        decoded = codec.decode(payload, size, SETTING, CONTEXT)
        assert isinstance(payload, bytes)
        assert (decoded.dtype, decoded.shape) == (np.float32, (size,))
        assert np.isfinite(decoded).all(), name
        assert decoded.flags.writeable
        np.testing.assert_array_equal(vector, before)
        if name == "zeros":
            assert not decoded.any()


def test_the_same_names_give_the_same_bytes_and_vector(codec):
    vector = heavy(1000)
    again = dataclasses.replace(CONTEXT)
    payload = codec.encode(vector, SETTING, CONTEXT)
    assert codec.encode(vector, SETTING, again) == payload
    assert codec.encode(vector[::-1].copy()[::-1], SETTING, again) == payload  # strided
    np.testing.assert_array_equal(
        codec.decode(payload, 1000, SETTING, CONTEXT),
        codec.decode(memoryview(payload), 1000, SETTING, again),
    )


def test_what_a_payload_weighs(codec):
    expected = {
        "fp32": 4 * SIZE,
        "fp16": 4 + 2 * SIZE,
        "modint": 4 + SIZE,
        "subspace": 4 * 410,
        "countsketch": 4 * 3 * 137,
        "rot1bit": 4 + SIZE // 8,
        # 410 values, and indices whose entropy is 1,914 bits by Stirling; Rice codes come close.
        "topk": 4 + 410 + 252,
        "powersgd": 2 * (4 + 2 * 64 * 2),
    }
    assert len(codec.encode(gaussian(SIZE), SETTING, CONTEXT)) == pytest.approx(
        expected[codec.name], rel=0 if codec.name != "topk" else 0.02
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_not_finite_is_refused(codec, bad):
    vector = gaussian(100)
    vector[37] = bad
    with pytest.raises(InputError, match="finite"):
        codec.encode(vector, SETTING, CONTEXT)


def test_no_vector_at_all_is_refused(codec):
    for vector in (np.zeros(0, np.float32), np.zeros((4, 4), np.float32)):
        with pytest.raises(InputError, match="flat"):
            codec.encode(vector, SETTING, CONTEXT)


@pytest.mark.parametrize("size", [1, 7, 200, 1000])
def test_a_payload_of_another_length_is_refused(codec, size):
    payload = codec.encode(gaussian(size), SETTING, CONTEXT)
    for broken in (b"", payload[:-1], payload[:3], payload[: len(payload) // 2], payload + b"\0"):
        with pytest.raises(ProtocolError):
            codec.decode(broken, size, SETTING, CONTEXT)


def test_garbage_is_refused_or_decodes_to_finite_numbers(codec):
    random = np.random.default_rng(5)
    refused = 0
    for size in (5, 200, 1000):
        payload = codec.encode(gaussian(size), SETTING, CONTEXT)
        for trial in range(60):
            garbage = bytearray(random.bytes(len(payload)))
            if trial % 2:  # a true payload with a few bytes altered
                garbage = bytearray(payload)
                for place in random.integers(0, len(payload), 3):
                    garbage[place] = random.integers(256)
            try:
                decoded = codec.decode(bytes(garbage), size, SETTING, CONTEXT)
            except ProtocolError:
                refused += 1
            else:
                assert (decoded.dtype, decoded.shape) == (np.float32, (size,))
                assert np.isfinite(decoded).all()
    assert refused


def worst_payloads():
    nan, negative = np.float32(np.nan).tobytes(), np.float32(-1).tobytes()
    for name in ("fp32", "fp16", "modint", "subspace", "rot1bit", "topk", "powersgd"):
        yield name, nan
        if name not in ("fp32", "subspace"):
            yield name, negative


@pytest.mark.parametrize(("name", "opening"), list(worst_payloads()))
def test_a_scale_that_is_none_is_refused(name, opening):
    payload = CODECS[name].encode(gaussian(200), SETTING, CONTEXT)
    with pytest.raises(ProtocolError):
        CODECS[name].decode(opening + payload[4:], 200, SETTING, CONTEXT)


@pytest.mark.parametrize("size", [SIZE, 5000])
def test_distortion_stays_within_its_bound(codec, size):
    for vector, bound in zip((gaussian(size), heavy(size)), NMSE[codec.name], strict=True):
        found = nmse(codec, vector)
        assert found <= bound
        assert found >= 0.4 * bound or bound < 1e-6 or codec.name == "countsketch"


@pytest.mark.parametrize("kind", [gaussian, heavy])
@pytest.mark.parametrize("name", sorted(LADDERS))
def test_a_weaker_setting_costs_bytes_and_saves_error(name, kind):
    codec, vector = CODECS[name], kind(SIZE)
    errors = [nmse(codec, vector, setting) for setting in LADDERS[name]]
    sizes = [len(codec.encode(vector, setting, CONTEXT)) for setting in LADDERS[name]]
    assert all(worse > better for worse, better in itertools.pairwise(errors))
    assert sizes == sorted(set(sizes))


def test_a_sketch_of_a_small_block_is_the_block():
    vector = gaussian(60)
    for name in ("subspace", "countsketch"):
        codec = CODECS[name]
        assert codec.encode(vector, SETTING, CONTEXT) == vector.tobytes()
