"""At most one bit an entry: signs of the rotated vector, and one scale.

Sources: Vargaftik et al., "DRIVE: One-bit Distributed Mean Estimation", 2021, arXiv:2105.08339,
theorem 2 (the unbiased scale); Vargaftik et al., "EDEN", 2022, arXiv:2108.08842, section 4.

The proof asks for a uniformly random rotation. One pass of signs and Hadamard is not that: a vector
with a single large entry becomes constant in magnitude, and its small entries leave no trace in the
signs. Two passes hide the direction well enough that no bias is seen; below 128 entries the
rotation is uniform and nothing is left to hope for.
"""

from __future__ import annotations

import numpy as np

from fedfuse_ray.blocks import Vector
from fedfuse_ray.compression.codec import TINY, Context, Setting, checked, header, read_header
from fedfuse_ray.compression.rotation import rotate, unrotate
from fedfuse_ray.packing import Modular, pack, unpack

_PASSES = ("rot1bit/0", "rot1bit/1")


class RotOneBit:
    """A float32 scale, then the sign bits of the first `signs` of the rotated entries.

    With r these entries of Rx, the scale is |x|^2 / |r|_1: the decoded vector then has the
    component of x along x exactly, and the rest averages out. Each institution has a rotation of
    its own, so that errors average out over institutions too. Under `contract` it is the mean of
    |r|, which leaves the least error and a bias, for error feedback to make up.

    Formal guarantees:
        Expected squared error over the squared norm, for large sizes and f = `signs`:
        pi / (2 f) - 1 (0.571 at f = 1), and 1 - 2 f / pi under `contract` (0.363 at f = 1).
    """

    name = "rot1bit"
    linear = False
    unbiased = True
    paper = "Vargaftik et al., 2021, arXiv:2105.08339; 2022, arXiv:2108.08842"

    def encode(self, vector: Vector, setting: Setting, context: Context) -> bytes:
        """Return 4 + ceil(signs * size / 8) bytes; see `Codec.encode`."""
        values, peak = checked(vector)
        kept = num_signs(values.size, setting)
        if peak < TINY:
            return header(0.0) + bytes(-(-kept // 8))
        values = values * np.float32(1 / peak)
        squares = float(np.square(values).sum(dtype=np.float64))
        for name in _PASSES:
            values = rotate(values, context.of_sender(name))
        sent = values[:kept]
        magnitudes = float(np.abs(sent).sum(dtype=np.float64))
        scale = magnitudes / kept if setting.contract else squares / max(magnitudes, TINY)
        bits: Modular = (sent < 0).view(np.uint8)
        return header(peak * scale) + pack(bits, 1)

    def decode(
        self, payload: bytes | memoryview, size: int, setting: Setting, context: Context
    ) -> Vector:
        """Return the vector; see `Codec.decode`."""
        scale, body = read_header(payload)
        bits = unpack(body, num_signs(size, setting), 1)
        values = np.zeros(size, dtype=np.float32)
        values[: bits.size] = np.float32(scale) * (1.0 - 2.0 * bits.astype(np.float32))
        for name in reversed(_PASSES):
            values = unrotate(values, context.of_sender(name))
        return values


def num_signs(size: int, setting: Setting) -> int:
    """Return how many signs are sent."""
    return max(1, round(setting.signs * size))
