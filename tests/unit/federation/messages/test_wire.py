from __future__ import annotations

import hashlib
import json
import struct

import numpy as np
import pytest

from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.federation.messages import wire

MESSAGE = wire.Message(
    institution="med-01",
    round=3,
    codec="fp32",
    blocks={"fusion": np.arange(4, dtype="<f4").tobytes(), "empty": b"", "head/x": b"\1\2\3\4"},
    sizes={"fusion": 4, "empty": 0, "head/x": 1},
    steps=7,
)


def forged(header: object, payload: bytes = b"") -> bytes:
    """Return bytes with a fitting digest, as somebody who knows the format could send."""
    text = json.dumps(header).encode()
    body = struct.pack("<4sHI", b"FFRU", 1, len(text)) + text + payload
    return body + hashlib.blake2b(body, digest_size=16).digest()


def test_a_message_comes_back_as_it_was_sent():
    back = wire.unpack(wire.pack(MESSAGE))
    assert (back.institution, back.round, back.codec, back.steps) == ("med-01", 3, "fp32", 7)
    assert list(back.blocks) == list(MESSAGE.blocks)
    assert {n: bytes(p) for n, p in back.blocks.items()} == dict(MESSAGE.blocks)
    assert dict(back.sizes) == dict(MESSAGE.sizes)


def test_payloads_are_views_of_what_arrived():
    data = bytearray(wire.pack(MESSAGE))
    values = np.frombuffer(wire.unpack(memoryview(data)).blocks["fusion"], "<f4")
    assert np.shares_memory(values, np.frombuffer(data, np.uint8))


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_every_altered_byte_is_refused(mask):
    data = wire.pack(MESSAGE)
    for position in range(len(data)):
        altered = bytearray(data)
        altered[position] ^= mask
        with pytest.raises(ProtocolError):
            wire.unpack(bytes(altered))


def test_every_truncation_and_every_extension_is_refused():
    data = wire.pack(MESSAGE)
    for length in range(len(data)):
        with pytest.raises(ProtocolError):
            wire.unpack(data[:length])
    with pytest.raises(ProtocolError):
        wire.unpack(data + b"\0")
    with pytest.raises(ProtocolError):
        wire.unpack(b"\0" + data)


def test_another_version_is_refused_by_name():
    data = bytearray(wire.pack(MESSAGE))
    data[4] = 2
    with pytest.raises(ProtocolError, match="version 1"):
        wire.unpack(bytes(data))


GOOD = {"institution": "a", "round": 1, "codec": "fp32", "steps": 1, "blocks": [["x", 4, 1]]}


def test_the_forger_of_these_tests_can_write_a_good_message():
    assert bytes(wire.unpack(forged(GOOD, b"abcd")).blocks["x"]) == b"abcd"


@pytest.mark.parametrize(
    "header",
    [
        [],
        "x",
        None,
        {},
        {**GOOD, "blocks": None},
        {**GOOD, "blocks": [["x", 4]]},
        {**GOOD, "blocks": [["x", "4", 1]]},
        {**GOOD, "blocks": [["x", 3, 1]]},
        {**GOOD, "blocks": [["x", 5, 1]]},
        {**GOOD, "blocks": [["x", 4, 1], ["x", 0, 0]]},
        {**GOOD, "blocks": [["x", -4, 1], ["y", 8, 1]]},
        {**GOOD, "blocks": [["x", 4.0, 1]]},
        {**GOOD, "blocks": [[["x"], 4, 1]]},
        {**GOOD, "blocks": [["x", 4, "1"]]},
        {**GOOD, "institution": ["a"]},
        {**GOOD, "institution": {}},
        {**GOOD, "round": "1"},
        {**GOOD, "steps": "1"},
        {**GOOD, "steps": -1},
        {**GOOD, "steps": 1e400},
        {**GOOD, "codec": None},
        {k: v for k, v in GOOD.items() if k != "steps"},
    ],
)
def test_a_well_sealed_header_that_makes_no_sense_is_refused(header):
    with pytest.raises(ProtocolError, match="header"):
        wire.unpack(forged(header, b"abcd"))


def test_a_header_longer_than_the_message_is_refused():
    body = struct.pack("<4sHI", b"FFRU", 1, 2**31) + b"{}"
    with pytest.raises(ProtocolError):
        wire.unpack(body + hashlib.blake2b(body, digest_size=16).digest())


def test_a_header_nested_too_deep_is_refused():
    text = b"[" * 100_000 + b"]" * 100_000
    body = struct.pack("<4sHI", b"FFRU", 1, len(text)) + text
    with pytest.raises(ProtocolError, match="header"):
        wire.unpack(body + hashlib.blake2b(body, digest_size=16).digest())
