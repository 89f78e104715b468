"""A sparse random projection: each entry is added, with a sign, to one bucket in every row.

The same map applies to a whole update or, before a clip, to the gradient of one record: its arrays
are public so that other code can scatter with them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedfuse_ray.blocks import Vector
from fedfuse_ray.compression.codec import Setting


@dataclass(frozen=True, eq=False)
class SparseProjection:
    """The matrix P [rows * width, size]: in each row of buckets an entry falls into one.

    Attributes:
        index: int64 [rows, size], the bucket of each entry, from 0 to width - 1.
        signs: float32 [rows, size], sign of an entry times the scale of its bucket: coordinate b of
            row r is the sum of signs[r, i] * x[i] over the entries i with index[r, i] = b.
        width: Buckets in a row.
        axes: Where P is made of one small matrix for each axis of each tensor of a block, these
            matrices, float32 [coordinates, entries of the axis], by tensor: a stack of records'
            gradients is projected faster axis by axis.
    """

    index: npt.NDArray[np.int64]
    signs: npt.NDArray[np.float32]
    width: int
    axes: tuple[tuple[npt.NDArray[np.float32], ...], ...] = ()

    @property
    def size(self) -> int:
        """Entries of the vectors that it takes."""
        return int(self.index.shape[1])

    @property
    def coordinates(self) -> int:
        """Entries of the vectors that it gives."""
        return len(self.index) * self.width

    def project(self, vector: Vector) -> Vector:
        """Return P x, float32 [rows * width], for x float32 [size]; sums in float64."""
        rows = [
            np.bincount(index, weights=signs * vector, minlength=self.width)
            for index, signs in zip(self.index, self.signs, strict=True)
        ]
        return np.concatenate(rows).astype(np.float32)

    def lift(self, coordinates: Vector) -> Vector:
        """Return P^T y, float32 [size], for y float32 [rows * width]."""
        table = coordinates.reshape(-1, self.width)
        lifted = np.zeros(self.size, dtype=np.float32)
        for index, signs, row in zip(self.index, self.signs, table, strict=True):
            lifted += signs * row[index]
        return lifted


def num_coordinates(size: int, setting: Setting) -> int:
    """Return the coordinates of a sketch: a fraction of `size`, but not below `smallest`."""
    wanted = math.ceil(setting.fraction * size - 1e-9)
    return min(size, max(min(size, setting.smallest), wanted))


def identity(size: int) -> SparseProjection:
    """Return the map that changes nothing, for blocks too small to be sketched."""
    index, signs = np.arange(size, dtype=np.int64)[None], np.ones((1, size), dtype=np.float32)
    return SparseProjection(index, signs, width=size)


def random_signs(size: int, generator: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return fair signs, float32 [size]."""
    bits = np.frombuffer(generator.bytes(-(-size // 8)), dtype=np.uint8)
    signs: npt.NDArray[np.float32] = np.unpackbits(bits, count=size).astype(np.float32)
    signs *= -2.0
    signs += 1.0
    return signs
