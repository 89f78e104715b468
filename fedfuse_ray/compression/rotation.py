"""A random rotation that gives every vector entries of one scale, in time size * log(size).

Random signs, then a Hadamard transform: whatever the vector was, its entries look Gaussian
afterwards, so that one grid or one scale fits all of them. Sources: Suresh, Yu, Kumar and McMahan,
"Distributed Mean Estimation with Limited Communication", 2017, arXiv:1611.00429, section 3;
Ailon and Chazelle, "The Fast Johnson-Lindenstrauss Transform", 2009.

A Hadamard matrix exists for powers of two, and vectors have any size. Instead of padding up to
twice the bits, a vector of m * 2^k + r entries (64 <= m < 128, r < 2^k) is rotated by a Kronecker
product of Hadamard matrices and one Hartley matrix of size m, which is as flat up to a factor of
sqrt(2). Before that, its last m * 2^(k-1) entries are rotated in the same way, which carries what
the r entries at the end hold into the rest. Below 128 entries it is one uniformly random
orthogonal matrix.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fedfuse_ray.blocks import Vector

Matrix = npt.NDArray[np.float32]

_HAAR_BELOW = 128
_DIGIT_BITS = 3
_CHUNK = 1 << 16  # entries; with its product it stays in the second-level cache


def rotate(vector: Vector, generator: np.random.Generator) -> Vector:
    """Return the rotated vector.

    Args:
        vector: Flat float32, shape [size], size at least 1.
        generator: Names the rotation; `unrotate` needs one in the same state.

    Returns:
        float32 [size], in memory of its own.

    Formal guarantees:
        Orthonormal up to float32 rounding. Any fixed unit vector gets entries with mean zero;
        the m * 2^k entries of the last pass have one common scale 1/sqrt(size) within a factor of
        sqrt(2), and fewer than 1/64 of the entries may have another, from 0 to 2 of it.
    """
    if vector.size < _HAAR_BELOW:
        return (_haar(vector.size, generator) @ vector).astype(np.float32)
    rotated = np.array(vector, dtype=np.float32)
    for part, factor, exponent, bits in _passes(rotated, generator):
        _flip(part, bits)
        _transform(part, factor, exponent)
    return rotated


def unrotate(vector: Vector, generator: np.random.Generator) -> Vector:
    """Return what `rotate` was given, up to float32 rounding; the inverse and the transpose.

    Args:
        vector: The rotated one, shape [size].
        generator: In the state that `rotate` found it in.
    """
    if vector.size < _HAAR_BELOW:
        return (_haar(vector.size, generator).T @ vector).astype(np.float32)
    unrotated = np.array(vector, dtype=np.float32)
    for part, factor, exponent, bits in reversed(_passes(unrotated, generator)):
        _transform(part, factor, exponent)  # symmetric, so it undoes itself
        _flip(part, bits)
    return unrotated


def _passes(vector: Vector, generator: np.random.Generator) -> list[tuple[Vector, int, int, bytes]]:
    """Return the parts to rotate in turn: a view, its size as factor * 2^exponent, its signs."""
    exponent = vector.size.bit_length() - 7
    factor = vector.size >> exponent
    covered = factor << exponent
    parts = [(vector[:covered], factor, exponent)]
    if covered < vector.size:
        parts.insert(0, (vector[vector.size - covered // 2 :], factor, exponent - 1))
    return [(*part, generator.bytes(-(-part[0].size // 8))) for part in parts]


def _flip(part: Vector, bits: bytes) -> None:
    """Change the sign of the entries whose bit is set, in place."""
    packed, words = np.frombuffer(bits, dtype=np.uint8), part.view(np.uint32)
    for start in range(0, words.size, _CHUNK):
        piece = words[start : start + _CHUNK]
        chosen = np.unpackbits(packed[start // 8 : (start + _CHUNK) // 8], count=piece.size)
        piece ^= chosen.astype(np.uint32) << np.uint32(31)


def _transform(part: Vector, factor: int, exponent: int) -> None:
    """Multiply by Hadamard(2^exponent) x Hartley(factor), in place.

    Neighbours meet in the Hartley matrix, so that a run of large entries is cut up by it. What
    happens within a piece that fits the cache is done there at once; then the pieces are mixed.
    """
    within = min(exponent, (_CHUNK // factor).bit_length() - 1)
    for piece in part.reshape(-1, factor << within):
        rows = piece.reshape(-1, factor)
        rows[:] = rows @ _hartley(factor)
        _transform_digits(piece, factor, within)
    _transform_digits(part, factor << within, exponent - within)


def _transform_digits(part: Vector, stride: int, exponent: int) -> None:
    """Multiply by a Hadamard matrix of size 2^exponent along a stride, in place, by digits."""
    while exponent:
        bits = min(_DIGIT_BITS, exponent)
        hadamard, cube = _hadamard(bits), part.reshape(-1, 1 << bits, stride)
        width = min(stride, _CHUNK >> bits)
        for column in range(0, stride, width):
            for piece in cube[:, :, column : column + width] if width < stride else (cube,):
                piece[:] = np.matmul(hadamard, piece)
        exponent -= bits
        stride <<= bits


@lru_cache(maxsize=_DIGIT_BITS)
def _hadamard(bits: int) -> Matrix:
    matrix = np.ones((1, 1))
    for _ in range(bits):
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    scaled: Matrix = (matrix / np.sqrt(len(matrix))).astype(np.float32)
    return scaled


@lru_cache(maxsize=_HAAR_BELOW)
def _hartley(size: int) -> Matrix:
    """Return cos + sin of 2 pi i j / size, over sqrt(size): orthonormal and symmetric."""
    index = np.arange(size)
    angle = 2 * np.pi * (np.outer(index, index) % size) / size
    matrix: Matrix = ((np.cos(angle) + np.sin(angle)) / np.sqrt(size)).astype(np.float32)
    return matrix


def _haar(size: int, generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return a uniformly random orthogonal matrix."""
    matrix, triangle = np.linalg.qr(generator.standard_normal((size, size)))
    # Without the signs the factor of a Gaussian matrix would not be uniform.
    return matrix * np.sign(np.diag(triangle))
