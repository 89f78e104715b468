"""Two bytes an entry: half floats under one scale, so that small updates do not vanish."""

from __future__ import annotations

from fedfuse_ray.blocks import Payload, Vector
from fedfuse_ray.compression.codec import Context, Setting, halves, read_halves


class Fp16:
    """Half floats relative to a power of two, rounded to nearest.

    Formal guarantees:
        Each entry is off by at most 2^-11 of itself plus 2^-25 of the scale, which is at most
        twice the largest entry. Rounding is deterministic, hence not unbiased, and a sum of half
        floats is no half float, hence not linear.
    """

    name = "fp16"
    linear = False
    unbiased = False
    paper = "IEEE 754, binary16; Micikevicius et al., 2018, arXiv:1710.03740 (scaling)"

    def encode(self, vector: Vector, setting: Setting, context: Context) -> bytes:
        """Return 4 + 2 * size bytes; see `Codec.encode`."""
        return halves(vector)

    def decode(self, payload: Payload, size: int, setting: Setting, context: Context) -> Vector:
        """Return the vector; see `Codec.decode`."""
        return read_halves(payload, size)
