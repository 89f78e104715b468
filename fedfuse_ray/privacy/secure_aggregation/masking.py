"""Masks: streams of pseudo-random modular integers, added to vectors, that cancel in the sum.

Source: Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning", CCS
2017, eq. in section 4: y_u = x_u + PRG(b_u) + sum_{v>u} PRG(s_uv) - sum_{v<u} PRG(s_uv) mod 2^k.
The generator is AES-128 in counter mode. Its words are as wide as the modulus needs (1, 2 or 4
bytes): 2^k divides 2^width, so a uniform word stays uniform when reduced to k bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedfuse_ray.packing import Modular
from fedfuse_ray.privacy.secure_aggregation.keys import derive_key

_STREAM_KEY_BYTES = 16
_AES_BLOCK = 16
# All streams of a vector are added chunk by chunk, so that chunk and keystream stay in the cache.
_CHUNK_BYTES = 1 << 17
_ZEROS = memoryview(bytes(_CHUNK_BYTES))


@dataclass(frozen=True)
class Stream:
    """One mask: the key of its keystream, and whether it is added (1) or subtracted (-1)."""

    key: bytes
    sign: int


def self_stream(seed: bytes, terms: bytes, owner: str, block: str, sign: int = 1) -> Stream:
    """Return the owner's own mask PRG(b_u) of a block, from that block's 16-byte seed."""
    return Stream(derive_key(seed, terms, "self", owner, block, length=_STREAM_KEY_BYTES), sign)


def pair_stream(agreed: bytes, terms: bytes, block: str, sign: int) -> Stream:
    """Return the mask PRG(s_uv) that a pair shares on a block that both own.

    Args:
        agreed: The pair's X25519 secret, the same on both sides.
        terms: Digest of the round's terms: another round gives another mask.
        block: The block's name: one key agreement serves all blocks.
        sign: `pair_sign` of the one whose vector it goes into.
    """
    return Stream(derive_key(agreed, terms, "pair", block, length=_STREAM_KEY_BYTES), sign)


def pair_sign(own_point: int, other_point: int) -> int:
    """Return 1 when the other's point is the larger, else -1: the two sides always cancel."""
    return 1 if other_point > own_point else -1


def add_streams(vector: Modular, streams: Sequence[Stream]) -> None:
    """Add every stream to `vector`, in place, modulo 2 to the width of its words.

    Args:
        vector: Flat and contiguous, of a type that `word_dtype` gives.
        streams: Masks; the order does not matter, as the sum is exact.

    Formal guarantees:
        With one stream whose key is secret and used nowhere else, the result is computationally
        indistinguishable from uniform words, whatever `vector` held. Every key starts its counter
        at zero and serves a single vector; 2^32 words stay far below the cipher's limits.
    """
    ciphers = [
        (
            Cipher(algorithms.AES(stream.key), modes.CTR(bytes(_AES_BLOCK))).encryptor(),
            np.add if stream.sign > 0 else np.subtract,
        )
        for stream in streams
    ]
    keystream = bytearray(_CHUNK_BYTES + _AES_BLOCK - 1)
    words = np.frombuffer(keystream, dtype=vector.dtype, count=_CHUNK_BYTES // vector.itemsize)
    for start in range(0, vector.size, words.size):
        part = vector[start : start + words.size]
        for cipher, apply in ciphers:
            cipher.update_into(_ZEROS[: part.nbytes], keystream)
            apply(part, words[: part.size], out=part)
