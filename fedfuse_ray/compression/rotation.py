"""A random rotation that gives every vector entries of one scale, in time size * log(size).

Random signs, then a Hadamard transform: whatever the vector was, its entries look Gaussian
afterwards, so that one grid or one scale fits all of them. Sources: Suresh, Yu, Kumar and McMahan,
"Distributed Mean Estimation with Limited Communication", 2017, arXiv:1611.00429, section 3;
Ailon and Chazelle, "The Fast Johnson-Lindenstrauss Transform", 2009.

A Hadamard matrix exists for powers of two, and vectors have any size. Instead of padding up to
twice the bits, a vector of p + r entries (p a power of two, r < p) is rotated in overlapping
blocks: its last p / 2 or p entries, which carries what the r at the end hold into the rest; then
its first p; and last, since the two parts may now have two scales, 16 entries at a time that lie a
sixteenth of the vector apart. Below 128 entries it is one uniformly random orthogonal matrix:
Stewart, "The Efficient Generation of Random Orthogonal Matrices", 1980.

Everything is sums and differences of two numbers, in an order that is written here: by BLAS it
would depend on the processor and on the number of threads, and so would what an institution sends.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedfuse_ray.blocks import Vector

Matrix = npt.NDArray[np.float32]
Scratch = tuple[Vector, ...]

_UNIFORM_BELOW = 128
_ROWS = 16
_CACHED_BITS = 16  # entries that stay in the second-level cache
_CHUNK = 1 << 15


def rotate(vector: Vector, generator: np.random.Generator) -> Vector:
    """Return the rotated vector.

    Args:
        vector: Flat float32, shape [size], size at least 1.
        generator: Names the rotation; `unrotate` needs one in the same state.

    Returns:
        float32 [size], in memory of its own.

    Formal guarantees:
        Orthonormal up to float32 rounding; the bits of the result depend on no library's kernels
        and no number of threads. Any fixed unit vector gets entries with mean zero and variance
        1/size, exactly where size is a power of two or below 128, else within a factor of
        1 +- (3/16 + 48/size), but for the last size mod 16 entries: theirs is from 0 to 3/size.
    """
    if vector.size < _UNIFORM_BELOW:
        return _uniform(vector, generator, inverse=False)
    rotated = np.array(vector, dtype=np.float32)
    passes, signs = _passes(rotated, generator), _symmetric_signs(vector.size, generator)
    for rows, bits in passes:
        _flip(rows.reshape(-1), bits)
        _transform(rows, signs)
    return rotated


def unrotate(vector: Vector, generator: np.random.Generator) -> Vector:
    """Return what `rotate` was given, up to float32 rounding; the inverse and the transpose.

    Args:
        vector: The rotated one, shape [size].
        generator: In the state that `rotate` found it in.
    """
    if vector.size < _UNIFORM_BELOW:
        return _uniform(vector, generator, inverse=True)
    unrotated = np.array(vector, dtype=np.float32)
    passes, signs = _passes(unrotated, generator), _symmetric_signs(vector.size, generator)
    for rows, bits in reversed(passes):
        _transform(rows, signs)  # symmetric, so it undoes itself
        _flip(rows.reshape(-1), bits)
    return unrotated


def _passes(vector: Vector, generator: np.random.Generator) -> list[tuple[Matrix, bytes]]:
    """Return the parts to rotate in turn, as views, with their signs.

    A part of one column is a block; of more, its columns are rotated apart.
    """
    power = 1 << (vector.size.bit_length() - 1)
    rest = vector.size - power
    parts = [vector[:power].reshape(power, 1)]
    if rest:
        last = power // 2 if 2 * rest <= power else power
        spread = vector[: vector.size - vector.size % _ROWS].reshape(_ROWS, -1)
        parts = [vector[vector.size - last :].reshape(last, 1), *parts, spread]
    return [(part, generator.bytes(-(-part.size // 8))) for part in parts]


def _symmetric_signs(size: int, generator: np.random.Generator) -> Matrix:
    """Return random signs, equal across the diagonal, as many as a square piece of a part takes."""
    side = 1 << min(_CACHED_BITS, size.bit_length() - 1) // 2
    packed = np.frombuffer(generator.bytes(-(-(side**2) // 8)), dtype=np.uint8)
    bits = np.unpackbits(packed, count=side**2).reshape(side, side)
    return np.float32(1.0) - np.float32(2.0) * (bits ^ bits.T)


def _flip(part: Vector, bits: bytes) -> None:
    """Change the sign of the entries whose bit is set, in place."""
    packed, words = np.frombuffer(bits, dtype=np.uint8), part.view(np.uint32)
    for start in range(0, words.size, _CHUNK):
        piece = words[start : start + _CHUNK]
        taken = packed[start // 8 : (start + _CHUNK) // 8]
        chosen = np.unpackbits(taken, count=piece.size, bitorder="little")
        piece ^= chosen.astype(np.uint32) << np.uint32(31)


def _transform(rows: Matrix, signs: Matrix) -> None:
    """Multiply by a symmetric orthogonal matrix of entries of one size, in place.

    Args:
        rows: Contiguous, shape [a power of two, columns].
        signs: Of `_symmetric_signs`.
    """
    count, columns = rows.shape
    scale = np.float32(count**-0.5)
    cached = min(rows.size, 1 << _CACHED_BITS)
    scratch = tuple(np.empty((2, cached), dtype=np.float32))
    if columns == 1:
        side = 1 << (cached.bit_length() - 1) // 2
        factors = signs[:side, :side] * scale
        for piece in rows.reshape(-1, cached):
            _transform_piece(piece, factors, scratch)
        count, columns, scale = count // cached, cached, np.float32(1.0)
    while count > 1:
        digit = min(count, _ROWS)
        for cube in rows.reshape(-1, digit, columns):
            for start in range(0, columns, cached // digit):
                part = cube[:, start : start + cached // digit]
                np.multiply(_butterflies(part, digit, *scratch), scale, out=part)
        count, columns, scale = count // digit, columns * digit, np.float32(1.0)


def _transform_piece(piece: Vector, factors: Matrix, scratch: Scratch) -> None:
    """Multiply by a symmetric matrix of one size, in place: Hadamard, signs, and Hadamard again.

    As square matrices: along one side, transposed, and along the other, so that all loops are
    long. The signs between leave less of the pattern of a vector with few entries.
    """
    side = len(factors)
    mixed = _butterflies(piece.reshape(-1, side), piece.size // side, *scratch)
    mixed = mixed.reshape(-1, side, side).transpose(0, 2, 1)
    np.multiply(mixed, factors, out=piece.reshape(mixed.shape))
    piece[:] = _butterflies(piece.reshape(-1, side), side, *scratch).reshape(-1)


def _butterflies(rows: Matrix, count: int, new: Vector, other: Vector) -> Matrix:
    """Multiply every `count` rows by a Hadamard matrix of +-1; the result lies in scratch."""
    total, width = rows.shape
    step = count // 2
    while step:
        pairs = rows.reshape(-1, 2, step, width)
        mixed = new[: rows.size].reshape(pairs.shape)
        np.add(pairs[:, 0], pairs[:, 1], out=mixed[:, 0])
        np.subtract(pairs[:, 0], pairs[:, 1], out=mixed[:, 1])
        rows, new, other, step = mixed.reshape(total, width), other, new, step // 2
    return rows


def _uniform(vector: Vector, generator: np.random.Generator, inverse: bool) -> Vector:
    """Multiply by a uniformly random orthogonal matrix, as reflections that would triangulate it.

    Reflection k moves a Gaussian vector of the last size - k entries to the first of them.
    """
    size, turned = vector.size, vector.astype(np.float64)
    normals = [generator.standard_normal(size - k) for k in range(size)]
    # Without the signs the factor of a Gaussian matrix would not be uniform.
    signs = np.array([-np.sign(normal[0]) for normal in normals])
    if not inverse:
        turned *= signs
    for k in range(size - 1) if inverse else reversed(range(size - 1)):
        mirror, part = normals[k], turned[k:]
        mirror[0] -= signs[k] * np.sqrt(np.square(mirror).sum())
        part -= mirror * (2.0 * (mirror * part).sum() / np.square(mirror).sum())
    if inverse:
        turned *= signs
    return turned.astype(np.float32)
