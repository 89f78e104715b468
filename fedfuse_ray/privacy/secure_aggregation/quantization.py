"""Signed integers as words modulo 2^k, and back: what secure sums add up."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedfuse_ray.packing import Modular, word_dtype


def to_modular(values: npt.NDArray[np.int64], modulus_bits: int) -> Modular:
    """Return signed integers modulo 2^k, as for vectors that already carry discrete noise.

    Values outside [-2^(k-1), 2^(k-1)) wrap around.
    """
    masked: npt.NDArray[np.int64] = values & ((1 << modulus_bits) - 1)
    return masked.astype(word_dtype(modulus_bits))


def from_modular(words: Modular, modulus_bits: int) -> npt.NDArray[np.int64]:
    """Return the representative in [-2^(k-1), 2^(k-1)) of each word."""
    half = 1 << (modulus_bits - 1)
    values: npt.NDArray[np.int64] = words.astype(np.int64) & (2 * half - 1)
    return ((values + half) & (2 * half - 1)) - half
