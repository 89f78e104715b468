"""What codecs declare: the mean over streams of an unbiased one, and sums of a linear one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fedfuse_ray.compression import CODECS, Context, Setting
from fedfuse_ray.compression.modint import from_words
from fedfuse_ray.compression.rotation import rotate, unrotate
from fedfuse_ray.config.settings.compression import LINEAR_CODECS
from fedfuse_ray.packing import pack, unpack, word_dtype

CONTEXT = Context(seed=1, round=2, block="encoder/ct", institution="med-01")
SETTING = Setting(bits=8, fraction=0.1, rank=2, smallest=64)


def gaussian(size, seed=0):
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


def heavy(size, seed=0):
    return np.random.default_rng(seed).standard_t(3, size).astype(np.float32)


def squared(vector):
    return float(np.square(vector.astype(np.float64)).sum())


class Shrunk:
    """A one-bit codec with the scale of least squared error: the negative control."""

    name, linear, unbiased, paper = "shrunk", False, True, "Vargaftik et al., 2021, theorem 1"

    def encode(self, vector, setting, context):
        return CODECS["rot1bit"].encode(vector, setting, context)

    def decode(self, payload, size, setting, context):
        return CODECS["rot1bit"].decode(payload, size, setting, context) * np.float32(2 / np.pi)


def bias_seen(codec, vector, setting, trials=200):
    """Squared length of the mean error over what chance alone would leave of it; about 1."""
    contexts = [dataclasses.replace(CONTEXT, round=round) for round in range(trials)]
    errors = np.stack(
        [
            codec.decode(codec.encode(vector, setting, c), vector.size, setting, c) - vector
            for c in contexts
        ]
    ).astype(np.float64)
    by_chance = errors.var(axis=0, ddof=1).sum() / trials
    return squared(errors.mean(axis=0)) / by_chance


@pytest.mark.parametrize("name", [n for n in sorted(CODECS) if CODECS[n].unbiased and n != "fp32"])
@pytest.mark.parametrize("kind", ["gaussian", "heavy", "spike and noise"])
@pytest.mark.parametrize("size", [200, 1001])
def test_the_mean_over_streams_is_the_vector(name, kind, size):
    vector = heavy(size, 3) if kind == "heavy" else gaussian(size, 3)
    if kind == "spike and noise":
        vector[5] = 100.0
    setting = Setting(bits=4, fraction=0.4, smallest=8, signs=0.7)
    # The ratio has mean 1 and a standard deviation of sqrt(2 / size), or for a sketch of a spike,
    # whose error lies in the few entries of one bucket, more.
    assert 0.4 < bias_seen(CODECS[name], vector, setting) < 1.8


@pytest.mark.parametrize("control", [Shrunk(), CODECS["topk"], CODECS["subspace"], "one pass"])
def test_the_check_of_the_mean_finds_a_bias(control):
    vector = gaussian(1001, 3)
    if control == "one pass":  # what rot1bit would be with a single Hadamard rotation
        control, vector[5] = OnePass(), 1e3
        errors = bias_seen(control, vector, SETTING)
    elif isinstance(control, Shrunk):
        errors = bias_seen(control, vector, SETTING)
    else:
        assert not control.unbiased
        contexts = [dataclasses.replace(CONTEXT, round=round) for round in (0, 1)]
        decoded = [
            control.decode(control.encode(vector, SETTING, c), vector.size, SETTING, c)
            for c in contexts
        ]
        np.testing.assert_array_equal(*decoded)  # the error is the same every time
        errors = np.inf if squared(decoded[0] - vector) > 0 else 0.0
    assert errors > 1.8  # the bound of the check


class OnePass:
    """DRIVE after a single pass of signs and Hadamard; its payload is the array."""

    def encode(self, vector, setting, context):
        rotated = rotate(vector, context.of_sender("pass")).astype(np.float64)
        scale = np.square(vector.astype(np.float64)).sum() / np.abs(rotated).sum()
        return (np.sign(rotated) * scale).astype(np.float32)

    def decode(self, payload, size, setting, context):
        return unrotate(payload, context.of_sender("pass"))


def added(codec, payloads, size, setting):
    """Add payloads as a secure sum would: numbers as numbers, words modulo 2^bits."""
    if codec.name == "modint":
        words = [unpack(p, size, setting.bits).astype(np.uint32) for p in payloads]
        total = np.sum(words, axis=0, dtype=np.uint32).astype(word_dtype(setting.bits))
        return bytes(pack(total, setting.bits))
    return np.sum([np.frombuffer(p, "<f4") for p in payloads], axis=0, dtype="<f4").tobytes()


class Squared:
    """Sends squares with their sign: looks like numbers, and is not linear."""

    name, linear, unbiased, paper = "squared", True, True, "none"

    def encode(self, vector, setting, context):
        return (vector * np.abs(vector)).astype("<f4").tobytes()

    def decode(self, payload, size, setting, context):
        values = np.frombuffer(payload, "<f4")
        return np.sign(values) * np.sqrt(np.abs(values))


def off_sum(codec, size):
    """How far the decoded sum of payloads is from the decoded payload of the sum."""
    setting = Setting(bits=16, fraction=0.2, smallest=16, reach=40.0)
    vectors = [gaussian(size, seed) for seed in range(5)]
    payloads = [
        codec.encode(v, setting, dataclasses.replace(CONTEXT, institution=str(i)))
        for i, v in enumerate(vectors)
    ]
    total = codec.decode(added(codec, payloads, size, setting), size, setting, CONTEXT)
    whole = np.sum(vectors, axis=0)
    expected = codec.decode(codec.encode(whole, setting, CONTEXT), size, setting, CONTEXT)
    return float(np.abs(total - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("name", sorted(LINEAR_CODECS))
@pytest.mark.parametrize("size", [3, 64, 1001])
def test_a_sum_of_payloads_is_a_payload_of_the_sum(name, size):
    assert off_sum(CODECS[name], size) < (6e-3 if name == "modint" else 1e-5)
    assert off_sum(Squared(), size) > 0.02


def test_words_of_modint_decode_to_the_sum_of_what_each_decodes_to():
    setting = Setting(bits=16, reach=10.0)
    codec, vectors = CODECS["modint"], [gaussian(500, seed) for seed in range(7)]
    contexts = [dataclasses.replace(CONTEXT, institution=str(i)) for i in range(7)]
    payloads = [codec.encode(v, setting, c) for v, c in zip(vectors, contexts, strict=True)]
    apart = sum(codec.decode(p, 500, setting, CONTEXT).astype(np.float64) for p in payloads)
    together = codec.decode(added(codec, payloads, 500, setting), 500, setting, CONTEXT)
    np.testing.assert_allclose(together, apart, atol=2e-5)
    steps = from_words(unpack(payloads[0], 500, 16), 1.0, 16)
    assert np.abs(steps).max() > 1000  # the words were not all zero
