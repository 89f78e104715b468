"""Modular integers as bytes, in as many bits as the modulus has.

Words of 8, 16 or 32 bits travel as they are. Any other width is cut into planes: its whole bytes,
then the rest of each word as packed groups of 4, 2 and 1 bits. A 12-bit vector takes 1.5 bytes an
entry, a 3-bit one 3/8.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fedfuse_ray.errors import ProtocolError

Modular = npt.NDArray[np.unsignedinteger[Any]]
"""A flat vector of uint8, uint16 or uint32 words, understood modulo 2^k."""

_Bytes = npt.NDArray[np.uint8]


def word_dtype(modulus_bits: int) -> np.dtype[np.unsignedinteger[Any]]:
    """Return the narrowest little-endian unsigned type that holds `modulus_bits` (1 to 32) bits."""
    return np.dtype("u1" if modulus_bits <= 8 else "<u2" if modulus_bits <= 16 else "<u4")


def packed_bytes(size: int, modulus_bits: int) -> int:
    """Return how many bytes `pack` gives for `size` words."""
    whole, rest = divmod(modulus_bits, 8)
    return size * whole + sum(-(-size * width // 8) for width in (4, 2, 1) if rest & width)


def pack(words: Modular, modulus_bits: int) -> bytes | memoryview:
    """Return the lowest `modulus_bits` bits of each word; higher bits are dropped.

    The answer may share the words' memory.

    Args:
        words: Flat, of the type `word_dtype(modulus_bits)`.
        modulus_bits: From 1 to 32.
    """
    words = np.ascontiguousarray(words, dtype=word_dtype(modulus_bits))
    if modulus_bits == 8 * words.itemsize:
        return words.data.cast("B")
    octets = words.view(np.uint8).reshape(words.size, words.itemsize)
    whole, rest = divmod(modulus_bits, 8)
    planes = [octets[:, index].tobytes() for index in range(whole)]
    shift = 0
    for width in (4, 2, 1):
        if rest & width:
            plane: _Bytes = (octets[:, whole] >> np.uint8(shift)) & np.uint8((1 << width) - 1)
            planes.append(_pack_plane(plane, width).tobytes())
            shift += width
    return b"".join(planes)


def unpack(data: bytes | memoryview, size: int, modulus_bits: int) -> Modular:
    """Return the words that `pack` wrote; the array may be read-only and share `data`'s memory.

    Raises:
        ProtocolError: `data` has not the length that `size` words take.
    """
    if len(data) != packed_bytes(size, modulus_bits):
        raise ProtocolError(f"{len(data)} bytes do not hold {size} words of {modulus_bits} bits")
    dtype = word_dtype(modulus_bits)
    raw = np.frombuffer(data, dtype=np.uint8)
    if modulus_bits == 8 * dtype.itemsize:
        return raw.view(dtype)
    words = np.zeros(size, dtype=dtype)
    octets = words.view(np.uint8).reshape(size, dtype.itemsize)
    whole, rest = divmod(modulus_bits, 8)
    for index in range(whole):
        octets[:, index] = raw[index * size : (index + 1) * size]
    offset, shift = whole * size, 0
    for width in (4, 2, 1):
        if rest & width:
            length = -(-size * width // 8)
            plane = _unpack_plane(raw[offset : offset + length], width)[:size]
            octets[:, whole] |= plane << shift
            offset, shift = offset + length, shift + width
    return words


def _pack_plane(values: _Bytes, width: int) -> _Bytes:
    """Pack values of `width` bits, 8 / width to a byte, the first in the lowest bits."""
    per_byte = 8 // width
    padded = np.zeros(-(-values.size // per_byte) * per_byte, dtype=np.uint8)
    padded[: values.size] = values
    groups = padded.reshape(-1, per_byte)
    packed = groups[:, 0].copy()
    for index in range(1, per_byte):
        packed |= groups[:, index] << (index * width)
    return packed


def _unpack_plane(packed: _Bytes, width: int) -> _Bytes:
    per_byte = 8 // width
    values = np.empty((packed.size, per_byte), dtype=np.uint8)
    for index in range(per_byte):
        values[:, index] = (packed >> (index * width)) & ((1 << width) - 1)
    return values.reshape(-1)
