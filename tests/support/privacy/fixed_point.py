"""Real vectors as modular integers whose sum over the institutions can't wrap around.

Unbiased stochastic rounding on the grid of multiples of `step`. Source of the construction: modular
fixed-point encodings as in Kairouz, Liu and Steinke, "The Distributed Discrete Gaussian Mechanism
for Federated Learning with Secure Aggregation", 2021, arXiv:2102.06387, here with a clip per entry
and without their rotation, which is a codec's business.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedfuse_ray.blocks import Vector
from fedfuse_ray.errors import InputError
from fedfuse_ray.packing import Modular, word_dtype
from fedfuse_ray.privacy.secure_aggregation import from_modular, to_modular
from fedfuse_ray.privacy.secure_aggregation.terms import MODULUS_BITS

_CHUNK = 1 << 16


@dataclass(frozen=True)
class FixedPoint:
    """An encoding of entries in [-clip, clip] as integers in [-levels, levels], modulo 2^k.

    Attributes:
        clip: Largest absolute value; larger entries are cut to it.
        levels: Grid points on each side of zero.
        modulus_bits: k, from 2 to 32.
        clients: Most vectors that may be summed: clients * levels <= 2^(k-1) - 1.

    Raises:
        InputError: A value is out of range, or the sum could wrap around.
    """

    clip: float
    levels: int
    modulus_bits: int
    clients: int

    def __post_init__(self) -> None:
        if not (np.isfinite(self.clip) and self.clip > 0):
            raise InputError("clip", self.clip, "must be a positive, finite number")
        if self.modulus_bits not in MODULUS_BITS:
            raise InputError("modulus_bits", self.modulus_bits, "must be from 2 to 32")
        if self.clients < 1:
            raise InputError("clients", self.clients, "must be at least 1")
        largest = (2 ** (self.modulus_bits - 1) - 1) // self.clients
        if not 1 <= self.levels <= largest:
            raise InputError(
                "levels",
                self.levels,
                f"must be from 1 to {largest}, or the sum of {self.clients} vectors can wrap around"
                f" modulo 2^{self.modulus_bits}: take a wider modulus or fewer value bits",
            )

    @classmethod
    def fit(
        cls, clip: float, modulus_bits: int, clients: int, value_bits: int | None = None
    ) -> FixedPoint:
        """Return the finest encoding whose sum fits, or the one with `value_bits` bits an entry.

        Args:
            clip: Largest absolute value of an entry.
            modulus_bits: k, from 2 to 32.
            clients: Most vectors that may be summed.
            value_bits: 2^value_bits - 1 grid points, if given.

        Raises:
            InputError: The sum could wrap around.
        """
        levels = (2 ** (modulus_bits - 1) - 1) // max(clients, 1)
        if value_bits is not None:
            levels = 2 ** (value_bits - 1) - 1
        return cls(clip=clip, levels=levels, modulus_bits=modulus_bits, clients=clients)

    @property
    def step(self) -> float:
        """Distance between neighbouring grid points."""
        return self.clip / self.levels

    def encode(self, vector: Vector, generator: np.random.Generator) -> Modular:
        """Round each entry at random to a neighbouring grid point.

        Args:
            vector: Flat float32, shape [size].
            generator: Decides the rounding.

        Returns:
            Words modulo 2^k, shape [size], negative values in two's complement.

        Raises:
            InputError: An entry is NaN or infinite.

        Formal guarantees:
            For |x| <= clip the decoded value has expectation x and lies within one step of it; the
            decoded value is always in [-clip, clip].
        """
        if not np.isfinite(vector).all():
            raise InputError("update", "NaN or infinity", "must be finite: lower the learning rate")
        words = np.empty(vector.size, dtype=word_dtype(self.modulus_bits))
        # In float64: a float32 has no bits left for the fraction on a fine grid.
        for start in range(0, vector.size, _CHUNK):
            part = vector[start : start + _CHUNK].astype(np.float64)
            np.clip(part, -self.clip, self.clip, out=part)
            part *= 1.0 / self.step
            part += generator.random(part.size)
            np.floor(part, out=part)
            np.clip(part, -self.levels, self.levels, out=part)
            words[start : start + _CHUNK] = to_modular(part.astype(np.int64), self.modulus_bits)
        return words

    def decode(self, total: Modular, clients: int) -> Vector:
        """Return the sum of the vectors that `clients` institutions encoded (float32, [size]).

        Raises:
            InputError: More vectors were summed than the encoding has room for.
        """
        if not 0 <= clients <= self.clients:
            raise InputError("clients", clients, f"this encoding holds sums of {self.clients}")
        return (from_modular(total, self.modulus_bits) * self.step).astype(np.float32)
