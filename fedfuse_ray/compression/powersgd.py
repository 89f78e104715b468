"""Low-rank factors of every weight matrix of a block.

Source: Vogels, Karimireddy and Jaggi, "PowerSGD: Practical Low-Rank Gradient Compression for
Distributed Optimization", 2019, arXiv:1905.13727, algorithm 1. Simplified: each institution
factorises its own update instead of all of them iterating on the sum, and the iteration starts
from a public random matrix instead of the last round's factor. It takes two steps for that, and
keeps no state beyond that of error feedback.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedfuse_ray.blocks import Vector
from fedfuse_ray.compression.codec import TINY, Context, Setting, checked, halves, read_halves
from fedfuse_ray.errors import InputError, ProtocolError

_ITERATIONS = 2
_DEPENDENT = 1e-6  # of a column's length, in float32 products

Matrix = npt.NDArray[np.float32]


class PowerSGD:
    """For every tensor its factors P [rows, rank] and Q [columns, rank], or itself if smaller.

    All as half floats with a scale. A tensor is the matrix of its first dimension against the
    rest. Without `context.shapes` the vector is one nearly square matrix, padded with zeros.

    Formal guarantees:
        P has orthonormal columns (or zeros) and Q = M^T P, so that what is decoded is a projection
        of the update: the error is never longer, up to the rounding of half floats.
    """

    name = "powersgd"
    linear = False
    unbiased = False
    paper = "Vogels et al., 2019, arXiv:1905.13727"

    def encode(self, vector: Vector, setting: Setting, context: Context) -> bytes:
        """Return the factors of all tensors.

        Raises:
            InputError: As `Codec.encode`, or `context.shapes` do not add up to the vector.
        """
        values = checked(vector)[0]
        stream = context.shared("powersgd")
        payload, start = [], 0
        for piece in _pieces(values.size, setting.rank, context):
            part = values[start : start + piece.size]
            start += piece.size
            if not piece.rank:
                payload.append(halves(part))
                continue
            matrix = np.zeros(piece.rows * piece.columns, dtype=np.float32)
            matrix[: part.size] = part
            factors = _factors(matrix.reshape(piece.rows, piece.columns), piece.rank, stream)
            payload += [halves(factor.reshape(-1)) for factor in factors]
        return b"".join(payload)

    def decode(
        self, payload: bytes | memoryview, size: int, setting: Setting, context: Context
    ) -> Vector:
        """Return the products of the factors; see `Codec.decode`."""
        view, parts = memoryview(payload), []

        def take(count: int) -> Vector:
            nonlocal view
            head, view = view[: 4 + 2 * count], view[4 + 2 * count :]
            return read_halves(head, count)

        for piece in _pieces(size, setting.rank, context):
            if not piece.rank:
                parts.append(take(piece.size))
                continue
            left = take(piece.rows * piece.rank).reshape(piece.rows, piece.rank)
            right = take(piece.columns * piece.rank).reshape(piece.columns, piece.rank)
            parts.append(_product(left, right).reshape(-1)[: piece.size])
        if len(view):
            raise ProtocolError(f"{len(view)} bytes follow the factors of {size} entries")
        return np.concatenate(parts)


@dataclass(frozen=True)
class _Piece:
    """A tensor as a matrix of `rows` x `columns`, at least `size`; rank 0 is sent as it is."""

    size: int
    rows: int
    columns: int
    rank: int


def _pieces(size: int, rank: int, context: Context) -> list[_Piece]:
    shapes: list[tuple[int, int, int]] = []
    for shape in context.shapes:
        entries = math.prod(shape)
        rows = shape[0] if shape else 1
        shapes.append((entries, rows, entries // max(rows, 1)))
    if not shapes:
        rows = math.ceil(math.sqrt(size))
        shapes = [(size, rows, -(-size // rows))]
    if sum(entries for entries, _, _ in shapes) != size:
        raise InputError(
            "shapes", context.shapes, f"the tensors of block {context.block} hold {size} entries"
        )
    return [
        _Piece(entries, rows, columns, rank if rank * (rows + columns) < entries else 0)
        for entries, rows, columns in shapes
        if entries
    ]


def _factors(matrix: Matrix, rank: int, stream: np.random.Generator) -> tuple[Matrix, Matrix]:
    """Return P and Q whose product P Q^T is close to the matrix."""
    right = stream.standard_normal((matrix.shape[1], rank), dtype=np.float32)
    peak = float(np.abs(matrix).max())
    if peak < TINY:
        return np.zeros((len(matrix), rank), dtype=np.float32), np.zeros_like(right)
    scale = np.float32(2.0 ** math.frexp(peak)[1])
    matrix = matrix / scale
    for _ in range(_ITERATIONS):
        left = _orthonormal(_times(matrix, right))
        right = _times(matrix.T, left)
    return left, right * scale


def _times(matrix: Matrix, thin: Matrix) -> Matrix:
    """Return the product, column by column and not by BLAS, whose sums depend on its threads."""
    return np.stack([np.einsum("ij,j->i", matrix, column) for column in thin.T.copy()], axis=1)


def _orthonormal(columns: Matrix) -> Matrix:
    """Return an orthonormal basis of the columns' span, with zeros in place of dependent ones."""
    basis: list[npt.NDArray[np.float64]] = []
    for column in columns.T.astype(np.float64):
        length = np.sqrt(np.square(column).sum())
        for _ in range(2):  # once leaves what rounding put back
            for earlier in basis:
                column = column - (earlier * column).sum() * earlier
        rest = np.sqrt(np.square(column).sum())
        basis.append(column / rest if rest > _DEPENDENT * length else np.zeros_like(column))
    return np.stack(basis, axis=1).astype(np.float32)


def _product(left: Matrix, right: Matrix) -> Matrix:
    """Return P Q^T.

    Raises:
        ProtocolError: The factors are so large that their product leaves float32.
    """
    bound = left.shape[1] * float(np.abs(left).max()) * float(np.abs(right).max())
    if not bound < np.finfo(np.float32).max:
        raise ProtocolError("the product of two factors is absurdly large")
    product: Matrix = np.einsum("ir,rj->ij", left, np.ascontiguousarray(right.T))
    return product
