"""Four bytes an entry, and nothing lost: what every other codec is measured against."""

from __future__ import annotations

from fedfuse_ray.blocks import Payload, Vector
from fedfuse_ray.compression.codec import Context, Setting, checked, floats, read_floats


class Fp32:
    """Little-endian float32 values, as they are."""

    name = "fp32"
    linear = True
    unbiased = True
    paper = "IEEE 754, binary32"

    def encode(self, vector: Vector, setting: Setting, context: Context) -> bytes:
        """Return 4 * size bytes; see `Codec.encode`."""
        return floats(checked(vector)[0])

    def decode(self, payload: Payload, size: int, setting: Setting, context: Context) -> Vector:
        """Return the vector; see `Codec.decode`."""
        return read_floats(payload, size)
