"""A count sketch: three independent hashes of the vector, and the median of what they say.

Sources: Charikar, Chen and Farach-Colton, "Finding Frequent Items in Data Streams", 2002, section
3; Rothchild et al., "FetchSGD", 2020, arXiv:2007.07682, for sums of updates.

It finds the few large entries of a heavy-tailed vector. On a dense one the other entries of a
bucket drown the one that is asked for: the squared error is then a multiple of size / coordinates
times the vector's own, and `subspace` or `modint` is the better choice.
"""

from __future__ import annotations

import numpy as np

from fedfuse_ray.blocks import Payload, Vector
from fedfuse_ray.compression.codec import Context, Setting, checked, floats, read_floats
from fedfuse_ray.compression.projection import (
    SparseProjection,
    identity,
    num_coordinates,
    random_signs,
)

ROWS = 3


class CountSketch:
    """Coordinates of all rows as float32; the map changes with every round.

    Formal guarantees:
        The sketch is linear: the sum of payloads is the payload of the sum. The decoded vector is
        unbiased: given the buckets, the error of each row is symmetric about zero and the rows are
        independent, hence so is their median. Decoding itself, being a median, is not linear.
    """

    name = "countsketch"
    linear = True
    unbiased = True
    paper = "Charikar et al., 2002; Rothchild et al., 2020, arXiv:2007.07682"

    def projection(self, size: int, setting: Setting, context: Context) -> SparseProjection:
        """Return P, scaled so that P^T P is the identity in expectation.

        It depends on the seed, the round and the block. Where no coordinate would be saved it is
        the identity.
        """
        width = _width(size, setting)
        if width == size:
            return identity(size)
        stream = context.shared("countsketch")
        index = stream.integers(0, width, (ROWS, size))
        signs = random_signs(ROWS * size, stream).reshape(ROWS, size)
        signs *= np.float32(ROWS**-0.5)
        return SparseProjection(index=index, signs=signs, width=width)

    def lift(self, coordinates: Vector, projection: SparseProjection) -> Vector:
        """Return the median over rows of what each says about every entry, float32 [size].

        The coordinates, float32 [rows * width], are those of one sketch or of a sum of them.
        """
        table = coordinates.reshape(-1, projection.width) * np.float32(len(projection.index))
        said: list[Vector] = [
            signs * row[index]
            for index, signs, row in zip(projection.index, projection.signs, table, strict=True)
        ]
        if len(said) == 1:
            return said[0]
        a, b, c = said  # the median of three without sorting every column
        median: Vector = np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))
        return median

    def encode(self, vector: Vector, setting: Setting, context: Context) -> bytes:
        """Return 4 bytes a coordinate; see `Codec.encode`."""
        values = checked(vector)[0]
        return floats(self.projection(values.size, setting, context).project(values))

    def decode(self, payload: Payload, size: int, setting: Setting, context: Context) -> Vector:
        """Return the medians; see `Codec.decode`."""
        width = _width(size, setting)
        coordinates = read_floats(payload, size if width == size else ROWS * width)
        return self.lift(coordinates, self.projection(size, setting, context))


def _width(size: int, setting: Setting) -> int:
    """Return the buckets of a row, or `size` where the rows together would save nothing."""
    width = -(-num_coordinates(size, setting) // ROWS)
    return size if ROWS * width >= size else width
