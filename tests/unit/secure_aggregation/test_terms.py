"""Secure aggregation: bad terms and inputs are named; encodings never wrap around."""

from __future__ import annotations

import numpy as np
import pytest

from fedfuse_ray import rng
from fedfuse_ray.errors import InputError, ProtocolError
from fedfuse_ray.packing import pack, packed_bytes, unpack
from fedfuse_ray.privacy.secure_aggregation import (
    BlockTerms,
    RoundTerms,
    Stage,
    from_modular,
    minimum_threshold,
    to_modular,
    word_dtype,
)
from tests.support.privacy.fixed_point import FixedPoint
from tests.support.privacy.secure_rounds import NAMES, Rounds, make_terms


@pytest.mark.parametrize("bits", range(1, 33))
@pytest.mark.parametrize("size", [1, 7, 64])
def test_packing_takes_no_bit_too_many_and_comes_back(bits: int, size: int) -> None:
    words = rng.generator(0, "words", bits).integers(0, 1 << bits, size, dtype=np.uint64)
    packed = pack(words.astype(word_dtype(bits)), bits)
    assert len(packed) == packed_bytes(size, bits) <= -(-size * bits // 8) + 2
    np.testing.assert_array_equal(unpack(packed, size, bits), words)
    with pytest.raises(ProtocolError, match="do not hold"):
        unpack(bytes(packed) + b"\0", size, bits)


def test_threshold_grows_with_those_who_collude() -> None:
    assert [minimum_threshold(n) for n in (2, 3, 14, 15)] == [2, 2, 8, 8]
    assert minimum_threshold(15, colluding=4) == 10


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"threshold": 3}, "threshold"),
        ({"threshold": 8}, "threshold"),
        ({"modulus_bits": 1}, "modulus_bits"),
        ({"modulus_bits": 33}, "modulus_bits"),
        ({"round": -1}, "round"),
        ({"identities": {"a": bytes(32)}}, "institutions"),
        ({"identities": dict.fromkeys(NAMES, bytes(32))}, "identities"),
        ({"blocks": {"b": BlockTerms(0, NAMES)}}, "blocks.b.size"),
        ({"blocks": {"b": BlockTerms(1, ())}}, "blocks.b.owners"),
        ({"blocks": {"b": BlockTerms(1, ("x",))}}, "blocks.b.owners"),
        ({"blocks": {"b": BlockTerms(1, NAMES[:2], 3)}}, "blocks.b.minimum_survivors"),
        ({"blocks": {"b": BlockTerms(1, NAMES, None, 1)}}, "blocks.b.modulus_bits"),
        ({"blocks": {"b": BlockTerms(1, NAMES, None, 33)}}, "blocks.b.modulus_bits"),
        ({"identities": {str(n): n.to_bytes(32) for n in range(2**16)}}, "institutions"),
    ],
)
def test_bad_terms_are_named(change: dict[str, object], field: str) -> None:
    good = make_terms()
    values = {name: getattr(good, name) for name in good.__dataclass_fields__}
    with pytest.raises(InputError) as caught:
        RoundTerms(**(values | change))
    assert caught.value.field == field


def test_inputs_that_are_not_the_clients_blocks_are_named() -> None:
    play = Rounds(make_terms(bits=16, widths={"fusion": 12}))
    answers = play.until(Stage.MASKED_INPUT)
    name = NAMES[0]
    good = play.inputs[name]
    for bad in (
        {"fusion": good["fusion"]},
        good | {"fusion": good["fusion"][:-1]},
        good | {"fusion": good["fusion"].astype(np.uint32)},
        good | {"fusion": good["fusion"] | np.uint16(1 << 12)},
    ):
        with pytest.raises(InputError, match="inputs"):
            play.clients[name].mask(answers[name], bad)
    play.clients[name].mask(answers[name], good)


def test_an_encoding_whose_sum_could_wrap_is_refused() -> None:
    assert FixedPoint.fit(1.0, 8, clients=15).levels == 8
    assert FixedPoint.fit(1.0, 12, clients=15, value_bits=8).levels == 127
    with pytest.raises(InputError, match="wrap around"):
        FixedPoint.fit(1.0, 11, clients=15, value_bits=8)
    for clip in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="clip"):
            FixedPoint.fit(clip, 16, clients=2)
    with pytest.raises(InputError, match="levels"):
        FixedPoint.fit(1.0, 8, clients=200)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_update_that_is_not_finite_is_refused(bad: float) -> None:
    vector = np.array([0.0, bad], dtype=np.float32)
    with pytest.raises(InputError, match="finite"):
        FixedPoint.fit(1.0, 16, clients=2).encode(vector, rng.generator(0, "encode"))


def test_rounding_is_unbiased_and_rounding_to_nearest_would_not_be() -> None:
    coding = FixedPoint.fit(1.0, 8, clients=15)
    value = np.float32(0.3 * coding.step)
    vector = np.full(50_000, value, dtype=np.float32)
    decoded = coding.decode(coding.encode(vector, rng.generator(0, "encode")), clients=1)

    def deviations(mean: float) -> float:
        spread = coding.step * float(np.sqrt(0.3 * 0.7 / vector.size))
        return abs(mean - float(value)) / spread

    assert deviations(float(decoded.mean())) < 5
    assert deviations(float(np.round(value / coding.step) * coding.step)) > 100


def test_the_largest_sum_fits_and_one_more_client_is_refused() -> None:
    coding = FixedPoint.fit(2.0, 8, clients=15)
    vector = np.array([9.0, -9.0], dtype=np.float32)
    words = coding.encode(vector, rng.generator(0, "encode"))
    total = (words * np.uint8(15)).astype(np.uint8)
    np.testing.assert_allclose(coding.decode(total, clients=15), [30.0, -30.0], rtol=1e-6)
    with pytest.raises(InputError, match="clients"):
        coding.decode(total, clients=16)


def test_signed_integers_come_back() -> None:
    values = np.array([-2048, -1, 0, 1, 2047], dtype=np.int64)
    np.testing.assert_array_equal(from_modular(to_modular(values, 12), 12), values)
    assert from_modular(to_modular(np.array([2048]), 12), 12)[0] == -2048
