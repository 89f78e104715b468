"""Rotated entries on an integer grid, modulo 2^bits: unbiased, linear, and cheap under masks.

After a rotation that all institutions share, every entry is rounded at random to one of its two
neighbours on a grid, and travels as an integer of a few bits. Sources: Suresh, Yu, Kumar and
McMahan, 2017, arXiv:1611.00429, section 3 (rotation and stochastic rounding); Kairouz, Liu and
Steinke, 2021, arXiv:2102.06387, section 4 (the same modulo 2^bits, under secure sums).

`ModInt` is the codec of one sender. Under a secure sum the pieces are used on their own: all send
`to_words(rotated(x, context), step, bits, context.of_sender("rounding"))` with a public step and as
many bits as the sum needs, and `unrotated(from_words(total, step, bits), context)` is the sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fedfuse_ray.blocks import Vector
from fedfuse_ray.compression.codec import TINY, Context, Setting, checked, header, read_header
from fedfuse_ray.compression.rotation import rotate, unrotate
from fedfuse_ray.errors import InputError
from fedfuse_ray.packing import Modular, pack, unpack, word_dtype

_CHUNK = 1 << 15
_EXACT_BITS = 12  # beyond, float32 has too few bits left for the fraction of a step


class ModInt:
    """Integers in [-(2^(bits-1) - 1), 2^(bits-1) - 1], two's complement, packed.

    The grid spans [-reach, reach] with 2^bits - 1 points. With a public `reach` larger entries are
    cut to it, which is the only bias, and payloads of the same round and block can be added. With
    none the reach is the largest entry, sent in four more bytes.

    Formal guarantees:
        Where nothing is cut the expectation of the decoded vector is the vector, and the expected
        squared error at most size * step^2 / 4, about size * step^2 / 6, with step =
        reach / (2^(bits-1) - 1).
    """

    name = "modint"
    linear = True
    unbiased = True
    paper = "Suresh et al., 2017, arXiv:1611.00429; Kairouz et al., 2021, arXiv:2102.06387"

    def encode(self, vector: Vector, setting: Setting, context: Context) -> bytes:
        """Return the packed words, after the reach where it is not public.

        Raises:
            InputError: As `Codec.encode`, or `bits` is 1.
        """
        levels = most_levels(setting.bits)
        turned = rotated(checked(vector)[0], context)
        reach, opening = setting.reach, b""
        if reach is None:
            reach = max(float(turned.max()), -float(turned.min()))
            reach = reach if reach >= TINY else 0.0
            opening = header(reach)
        if reach == 0.0:
            words: Modular = np.zeros(turned.size, dtype=word_dtype(setting.bits))
        else:
            words = to_words(turned, reach / levels, setting.bits, context.of_sender("rounding"))
        return b"".join((opening, pack(words, setting.bits)))

    def decode(
        self, payload: bytes | memoryview, size: int, setting: Setting, context: Context
    ) -> Vector:
        """Return the vector; see `Codec.decode`."""
        levels = most_levels(setting.bits)
        reach, body = setting.reach, memoryview(payload)
        if reach is None:
            reach, body = read_header(payload)
        words = unpack(body, size, setting.bits)
        return unrotated(from_words(words, reach / levels, setting.bits), context)


def rotated(vector: Vector, context: Context) -> Vector:
    """Return the vector after the rotation that all institutions share in this round and block."""
    return rotate(vector, context.shared("rotation"))


def unrotated(vector: Vector, context: Context) -> Vector:
    """Return what `rotated` was given, of a sum as of a single vector."""
    return unrotate(vector, context.shared("rotation"))


def most_levels(bits: int) -> int:
    """Return the grid points on each side of zero: 2^(bits-1) - 1.

    Raises:
        InputError: One bit holds no grid with a zero, more than 32 fit in no word.
    """
    if not 2 <= bits <= 32:
        raise InputError("compression.bits", bits, "a signed grid takes from 2 to 32 bits")
    return int((1 << (bits - 1)) - 1)


def to_words(
    vector: Vector,
    step: float,
    bits: int,
    generator: np.random.Generator,
    levels: int | None = None,
) -> Modular:
    """Round each entry at random to a neighbouring multiple of `step`, modulo 2^bits.

    Args:
        vector: Flat float32, shape [size], finite.
        step: Distance between grid points, positive.
        bits: Of the modulus, from 2 to 32.
        generator: Decides the rounding; never the same for two institutions, or their errors add.
        levels: Entries are cut to so many steps; as many as the modulus holds by default. The sum
            of n vectors can't wrap around while n * levels <= 2^(bits-1) - 1.

    Returns:
        Words of the type `word_dtype(bits)`, negative values in two's complement.

    Formal guarantees:
        Where nothing is cut the expectation is `vector / step`, up to 2^-24 of an entry, and each
        word lies within one of it.
    """
    bound = most_levels(bits) if levels is None else min(levels, most_levels(bits))
    words: Modular = np.empty(vector.size, dtype=word_dtype(bits))
    signed = words.view(_signed(words.dtype))
    real = np.float32 if bits <= _EXACT_BITS else np.float64
    factor = real(1.0 / step)
    for start in range(0, vector.size, _CHUNK):
        part = vector[start : start + _CHUNK] * factor
        np.clip(part, -bound, bound, out=part)
        part += generator.random(part.size, dtype=real)
        np.floor(part, out=part)
        np.minimum(part, bound, out=part)  # the sum above may have been rounded up
        signed[start : start + _CHUNK] = part
    if bits < 8 * words.itemsize:
        words &= words.dtype.type((1 << bits) - 1)
    return words


def from_words(words: Modular, step: float, bits: int) -> Vector:
    """Return the representative in [-2^(bits-1), 2^(bits-1)) of each word times `step` (float32).

    Args:
        words: Of the type `word_dtype(bits)`, one vector or a sum modulo 2^bits.
        step: Distance between grid points.
        bits: Of the modulus.
    """
    spare = 8 * words.itemsize - bits
    signed = words.view(_signed(words.dtype))
    if spare:  # the shift up drops what is beyond the modulus, the shift down carries the sign
        signed = (signed << spare) >> spare
    real = np.float32 if bits <= 2 * _EXACT_BITS else np.float64
    values: npt.NDArray[np.floating[Any]] = np.multiply(
        signed, real(step), dtype=real, casting="unsafe"
    )
    rounded: Vector = values.astype(np.float32, copy=False)
    return rounded


def _signed(dtype: np.dtype[np.unsignedinteger[Any]]) -> npt.DTypeLike:
    return np.dtype(f"<i{dtype.itemsize}")
