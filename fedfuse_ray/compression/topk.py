"""The largest entries only, with their places: for updates that are sparse, and not private.

Sources: Stich, Cordonnier and Jaggi, "Sparsified SGD with Memory", 2018, arXiv:1809.07599
(contraction, equation 7); for what it needs to converge, Richtarik, Sokolov and Fatkhullin, "EF21",
2021, arXiv:2106.05203. Under noise there are no large entries: at a tenth of the entries more than
half of the squared norm is lost.
"""

from __future__ import annotations

import numpy as np

from fedfuse_ray.blocks import Payload, Vector
from fedfuse_ray.compression import rice
from fedfuse_ray.compression.codec import (
    TINY,
    Context,
    Setting,
    checked,
    halves,
    header,
    read_halves,
    read_header,
)
from fedfuse_ray.compression.modint import from_words, most_levels
from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.packing import Modular, pack, packed_bytes, unpack, word_dtype

_HALF_BITS = 16


class TopK:
    """A scale, the kept values in `bits` bits each, and the Rice code of their indices.

    Values are rounded to nearest on a grid of 2^bits - 1 points up to the largest; with 16 bits or
    more they are half floats.

    Formal guarantees:
        With k of d entries kept, |x - decode(encode(x))|^2 <= (1 - k/d) |x|^2 + k (step/2)^2 with
        step = max|x| / (2^(bits-1) - 1): the kept entries hold at least their share of the squared
        norm. Deterministic; of equal magnitudes the first is kept.
    """

    name = "topk"
    linear = False
    unbiased = False
    paper = "Stich et al., 2018, arXiv:1809.07599; Richtarik et al., 2021, arXiv:2106.05203"

    def encode(self, vector: Vector, setting: Setting, context: Context) -> bytes:
        """Return the payload; see `Codec.encode`."""
        values = checked(vector)[0]
        kept = largest(values, num_kept(values.size, setting))
        return _encode_values(values[kept], setting.bits) + rice.encode(kept, values.size)

    def decode(self, payload: Payload, size: int, setting: Setting, context: Context) -> Vector:
        """Return the kept entries among zeros; see `Codec.decode`."""
        count, view = num_kept(size, setting), memoryview(payload)
        length = 4 + packed_bytes(count, min(setting.bits, _HALF_BITS))
        vector = np.zeros(size, dtype=np.float32)
        kept = rice.decode(view[length:], count, size)
        vector[kept] = _decode_values(view[:length], count, setting.bits)
        return vector


def num_kept(size: int, setting: Setting) -> int:
    """Return how many of `size` entries are kept: one or more."""
    return min(size, max(1, round(setting.fraction * size)))


def largest(vector: Vector, count: int) -> rice.Indices:
    """Return the indices of the `count` largest magnitudes, rising; of equal ones the first."""
    magnitudes = np.abs(vector)
    least = np.partition(magnitudes, vector.size - count)[vector.size - count]
    chosen = magnitudes > least
    equal = np.flatnonzero(magnitudes == least)
    chosen[equal[: count - int(np.count_nonzero(chosen))]] = True
    return np.flatnonzero(chosen)


def _encode_values(values: Vector, bits: int) -> bytes:
    if bits >= _HALF_BITS:
        return halves(values)
    levels, peak = most_levels(bits), float(np.abs(values).max())
    if peak < TINY:
        return header(0.0) + bytes(packed_bytes(values.size, bits))
    steps = np.rint(values.astype(np.float64) * (levels / peak)).astype(np.int64)
    words: Modular = (steps & ((1 << bits) - 1)).astype(word_dtype(bits))
    return header(peak) + bytes(pack(words, bits))


def _decode_values(code: memoryview, count: int, bits: int) -> Vector:
    if bits >= _HALF_BITS:
        return read_halves(code, count)
    peak, body = read_header(code)
    levels = most_levels(bits)
    values = from_words(unpack(body, count, bits), peak / levels, bits)
    if float(np.abs(values).max()) > peak * (1 + 1e-6):
        raise ProtocolError("a kept value lies beyond its scale")
    return values
