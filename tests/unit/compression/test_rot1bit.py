from __future__ import annotations

import math

import numpy as np
import pytest

from fedfuse_ray.compression import CODECS, Context, Setting, ef14

SIZE = 20_000
CONTEXT = Context(0, 1, "encoder/ct", "med-01")
CODEC = CODECS["rot1bit"]


def error(vector: np.ndarray, setting: Setting) -> float:
    decoded = CODEC.decode(CODEC.encode(vector, setting, CONTEXT), vector.size, setting, CONTEXT)
    return float(np.square(decoded - vector).sum() / np.square(vector).sum())


@pytest.fixture
def vector() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(SIZE).astype(np.float32)


@pytest.mark.parametrize("signs", [1.0, 0.85, 0.5])
def test_errors_are_what_the_formulae_say(vector, signs):
    unbiased = error(vector, Setting(signs=signs))
    assert unbiased == pytest.approx(math.pi / (2 * signs) - 1, rel=0.03)
    contracted = error(vector, Setting(signs=signs, contract=True))
    assert contracted == pytest.approx(1 - 2 * signs / math.pi, rel=0.03)
    assert contracted < unbiased


def test_a_part_of_the_signs_is_a_part_of_the_bytes(vector):
    whole = CODEC.encode(vector, Setting(), CONTEXT)
    part = CODEC.encode(vector, Setting(signs=0.5), CONTEXT)
    assert (len(whole), len(part)) == (4 + SIZE // 8, 4 + SIZE // 16)


def test_what_was_not_sent_is_made_up_for(vector):
    setting = Setting(signs=0.5, contract=True)
    memory, arrived = None, np.zeros(SIZE, np.float32)
    for round in range(1, 13):
        context = Context(0, round, "encoder/ct", "med-01")
        update = vector if round == 1 else np.zeros_like(vector)
        payload, memory = ef14(CODEC, update, memory, setting, context)
        arrived += CODEC.decode(payload, SIZE, setting, context)
    left = float(np.square(arrived - vector).sum() / np.square(vector).sum())
    assert left < 1.5 * (1 - 2 * 0.5 / math.pi) ** 12
