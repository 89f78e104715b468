"""Updates in a fixed random subspace: a fraction of the coordinates, chosen once for the whole run.

Entries are dealt at random, with signs, into buckets of equal size, and an update moves all of a
bucket together. Sources: Li, Farkhoor, Liu and Yosinski, "Measuring the Intrinsic Dimension of
Objective Landscapes", 2018, arXiv:1804.08838 (training in a fixed random subspace); Chen, Wilson,
Tyree, Weinberger and Chen, "Compressing Neural Networks with the Hashing Trick", 2015,
arXiv:1504.04788 (weights that share buckets).

Where the shapes of a block's tensors are known, it is their axes that are dealt out, not their
entries: a matrix becomes A Z B^T with Z small and A, B fixed. Axes of equal length share their
buckets in all tensors and blocks, so what one layer writes is what the next can read; a subspace
without that structure finds far less of the gradient. Low-rank adapters are alike: Yu et al., 2022,
arXiv:2110.06500, trains them for the same reason, noise that grows with the dimension.

The subspace does not change between rounds: training then happens inside it, and what the
projection drops is the same in every round instead of noise that adds up. Under record-level
privacy each record's gradient is projected before the clip, so that neither clip nor noise is spent
on what is dropped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import numpy.typing as npt

from fedfuse_ray.blocks import Payload, Vector
from fedfuse_ray.compression.codec import Context, Setting, checked, floats, read_floats
from fedfuse_ray.compression.projection import SparseProjection, num_coordinates, random_signs


class Subspace:
    """Coordinates in the subspace as float32.

    Formal guarantees:
        decode(encode(x)) = P^T P x, the orthogonal projection: linear, never longer than x, and
        applied twice the same as once. Biased: the map is fixed, so what is dropped stays dropped.
    """

    name = "subspace"
    linear = True
    unbiased = False
    paper = "Li et al., 2018, arXiv:1804.08838; Chen et al., 2015, arXiv:1504.04788"

    def projection(self, size: int, setting: Setting, context: Context) -> SparseProjection:
        """Return P, whose rows are orthonormal; it depends on the seed and the block only.

        Without shapes the block is one axis of `num_coordinates` buckets. With shapes each axis
        keeps the square root of the fraction, so that a matrix keeps the fraction, but not fewer
        than the square root of `smallest`. Bucket sizes differ by at most one.
        """
        if not context.shapes:
            width = num_coordinates(size, setting)
            return _joined([_dealt(size, width, context.lasting("subspace"))])
        axes = [[_axis(length, setting, context) for length in shape] for shape in context.shapes]
        joined = _joined([reduce(_product, each, _Dealt(_ZERO, _ONE, 1)) for each in axes])
        return replace(joined, axes=tuple(tuple(a.matrix() for a in each) for each in axes))

    def encode(self, vector: Vector, setting: Setting, context: Context) -> bytes:
        """Return 4 bytes a coordinate; see `Codec.encode`."""
        values = checked(vector)[0]
        return floats(self.projection(values.size, setting, context).project(values))

    def decode(self, payload: Payload, size: int, setting: Setting, context: Context) -> Vector:
        """Return P^T of the coordinates; see `Codec.decode`."""
        projection = self.projection(size, setting, context)
        return projection.lift(read_floats(payload, projection.coordinates))


_ZERO, _ONE = np.zeros(1, np.int64), np.ones(1, np.float32)


@dataclass(frozen=True)
class _Dealt:
    """Entries dealt into `width` buckets; each one's sign is over the root of its bucket's size."""

    index: npt.NDArray[np.int64]
    signs: npt.NDArray[np.float32]
    width: int

    def matrix(self) -> npt.NDArray[np.float32]:
        """Return the map as a dense matrix, float32 [buckets, entries]."""
        dense = np.zeros((self.width, self.index.size), np.float32)
        dense[self.index, np.arange(self.index.size)] = self.signs
        return dense


def _dealt(size: int, width: int, stream: np.random.Generator) -> _Dealt:
    """Deal `size` entries into `width` buckets; where none is saved, each has its own."""
    if width == size:
        return _Dealt(np.arange(size, dtype=np.int64), np.ones(size, np.float32), size)
    index = stream.permutation(size) % width
    scale = (1 / np.sqrt(np.bincount(index, minlength=width))).astype(np.float32)
    return _Dealt(index, random_signs(size, stream) * scale[index], width)


def _axis(length: int, setting: Setting, context: Context) -> _Dealt:
    kept = math.ceil(length * math.sqrt(setting.fraction) - 1e-9)
    width = min(length, max(kept, math.isqrt(setting.smallest)))
    shared = replace(context, block=f"axis of {length}")
    return _dealt(length, width, shared.lasting("subspace"))


def _product(outer: _Dealt, inner: _Dealt) -> _Dealt:
    """Return the buckets of a tensor whose last axis is `inner`."""
    index = (outer.index[:, None] * inner.width + inner.index).reshape(-1)
    signs = (outer.signs[:, None] * inner.signs).reshape(-1)
    return _Dealt(index, signs, outer.width * inner.width)


def _joined(tensors: list[_Dealt]) -> SparseProjection:
    """Return the map of a block from those of its tensors."""
    starts = np.cumsum([0, *(t.width for t in tensors)])
    index = np.concatenate([t.index + start for t, start in zip(tensors, starts, strict=False)])
    signs = np.concatenate([t.signs for t in tensors])
    return SparseProjection(index=index[None], signs=signs[None], width=int(starts[-1]))
