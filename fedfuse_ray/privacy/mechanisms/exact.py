"""Gaussian noise rounded to integers, sampled exactly: no low-order bits give anything away.

A floating-point Gaussian is not one: which sums can occur at all depends on the value that it hides
(Mironov, 2012, doi 10.1145/2382196.2382264). Here an integer is drawn from the law of the *real*
number c + s Z rounded to the nearest integer, by algorithm N of Karney, 2016, doi 10.1145/2710016
(arXiv 1303.6257), which takes nothing but uniform bits and comparisons: k with probability
proportional to exp(-k^2 / 2), a uniform fraction x accepted with probability exp(-x (2k + x) / 2),
a sign, and Z = +-(k + x).

Comparisons are made on whole arrays in double precision, and are believed only where they are far
from undecided. The few others, one in 2^42 or so, are decided in rational and decimal arithmetic on
192 more bits of each uniform number. So neither the processor's exponential nor the order of its
operations has a part in the result.
"""

from __future__ import annotations

import decimal
import math
from decimal import Decimal
from fractions import Fraction
from functools import cache

import numpy as np
import numpy.typing as npt

from fedfuse_ray.errors import InputError

Integers = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]
Words = npt.NDArray[np.uint64]

LARGEST_STD = 2.0**30
SURE = 2.0**-44
"""How far a comparison has to be from undecided: far more than doubles err by, rarely reached."""
_MORE_BITS = 192
_CONTEXT = decimal.Context(prec=90)
_LAST = 40  # exp(-40^2 / 2) is below 2^-1000


def rounded_normal(centres: Reals, std: float, generator: np.random.Generator) -> Integers:
    """Return round(c + std Z) of each centre c, for a standard normal Z of its own.

    Args:
        centres: float64 [size], finite and below 2^52.
        std: The standard deviation, in integer units.
        generator: Of uniform bits.

    Returns:
        int64 [size].

    Formal guarantees: for uniform bits, each integer k comes with probability
    Phi((k + 1/2 - c) / std) - Phi((k - 1/2 - c) / std) of the given doubles c and std, up to 2^-180
    in all. The integers are the same on every machine.

    Raises:
        InputError: The deviation is not positive, or above 2^30.
    """
    if not 0.0 < std <= LARGEST_STD:
        raise InputError("noise", std, "standard deviation above 0 and at most 2^30 units")
    whole = np.rint(centres)
    parts = centres - whole  # exact
    found: Integers = whole.astype(np.int64)
    pending = np.arange(centres.size)
    while pending.size:
        words = np.frombuffer(generator.bytes(24 * pending.size), dtype="<u8").reshape(3, -1)
        accepted, values = _attempt(words, parts[pending], std, generator)
        found[pending[accepted]] += values[accepted]
        pending = pending[~accepted]
    return found


def _attempt(
    words: Words, parts: Reals, std: float, generator: np.random.Generator
) -> tuple[npt.NDArray[np.bool_], Integers]:
    """Try once for each part; returns whether it was accepted, and the rounded part + std Z."""
    table = _words()
    k = np.searchsorted(table, words[0], side="right").astype(np.float64)
    unsure = np.isin(words[0], table)
    negative = (words[1] >> np.uint64(63)).astype(bool)
    x = (words[1] & np.uint64((1 << 63) - 1)).astype(np.float64) * 2.0**-63
    chance = np.exp(-0.5 * x * (2.0 * k + x))
    chosen = words[2].astype(np.float64) * 2.0**-64
    accepted = chosen < chance
    unsure |= np.abs(chosen - chance) < SURE
    place = parts + std * np.where(negative, -(k + x), k + x)
    values = np.rint(place)
    from_tie = np.abs(np.abs(place - values) - 0.5)
    unsure |= from_tie < SURE * (1.0 + std * (k + 1.0))
    integers: Integers = values.astype(np.int64)
    for i in np.flatnonzero(unsure):
        extra = [int.from_bytes(generator.bytes(_MORE_BITS // 8), "little") for _ in range(3)]
        drawn = [
            int(word) << _MORE_BITS | more for word, more in zip(words[:, i], extra, strict=True)
        ]
        accepted[i], integers[i] = _exactly(drawn, float(parts[i]), std)
    return accepted, integers


def _exactly(drawn: list[int], part: float, std: float) -> tuple[bool, int]:
    """Return what `_attempt` does, from three numbers of 256 bits."""
    chosen_k, fraction, chosen = drawn
    size = 64 + _MORE_BITS
    k = sum(chosen_k >= threshold for threshold in _thresholds(size))
    negative, x = (
        bool(fraction >> (size - 1)),
        Fraction(fraction % (1 << (size - 1)), 1 << (size - 1)),
    )
    half = x * (2 * k + x) / 2
    exponent = _CONTEXT.divide(Decimal(half.numerator), Decimal(half.denominator))
    chance = _CONTEXT.exp(-exponent)
    accepted = Decimal(chosen) < _CONTEXT.multiply(chance, Decimal(1 << size))
    z = -(k + x) if negative else k + x
    return accepted, math.floor(Fraction(part) + Fraction(std) * z + Fraction(1, 2))


@cache
def _thresholds(bits: int) -> tuple[int, ...]:
    """Return the distribution function of k, proportional to exp(-k^2 / 2), times 2^bits, cut."""
    with decimal.localcontext(_CONTEXT):
        weights = [(-Decimal(k * k) / 2).exp() for k in range(_LAST)]
        total, below = sum(weights), Decimal(0)
        found = []
        for weight in weights:
            below += weight
            found.append(min(int(below / total * (1 << bits)), (1 << bits) - 1))
    return tuple(found)


@cache
def _words() -> Words:
    """Return the thresholds that 64 bits can tell apart; a word equal to one is undecided."""
    return np.array(sorted(set(_thresholds(64))), dtype=np.uint64)
