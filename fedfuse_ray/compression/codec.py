"""What every codec keeps to: one block's update in, bytes out, and back.

A codec has no state. All that sender and receiver must agree on is in a `Setting` (how strongly to
compress) and a `Context` (which public random streams to draw), and neither is on the wire: the
bytes of a payload are what an update costs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fedfuse_ray import rng
from fedfuse_ray.blocks import Payload, Vector
from fedfuse_ray.errors import InputError, ProtocolError

LARGEST = 1e30
"""Entries beyond it are refused: their squares and rotations would leave float32."""

TINY = 1e-30
"""A vector whose entries all stay below it is encoded as zeros."""

_LARGEST_ON_THE_WIRE = 1e34
_HEADER_BYTES = 4


@dataclass(frozen=True)
class Context:
    """Which random streams an encoding draws: known to both ends, never sent.

    Attributes:
        seed: The experiment's.
        round: Of the federation, from 0 or 1 as the caller counts.
        block: Name of the block (`encoder/ct`).
        institution: Who encodes; empty for the server.
        shapes: The block's parameter tensors in order, for `powersgd`.
    """

    seed: int
    round: int
    block: str
    institution: str = ""
    shapes: tuple[tuple[int, ...], ...] = ()

    def shared(self, purpose: str) -> np.random.Generator:
        """Return a stream that all institutions share in this round and block."""
        return rng.generator(self.seed, f"codec/{purpose}", self.round, self.block)

    def of_sender(self, purpose: str) -> np.random.Generator:
        """Return a stream of this institution in this round and block."""
        keys = self.round, self.block, self.institution
        return rng.generator(self.seed, f"codec/{purpose}", *keys)

    def lasting(self, purpose: str) -> np.random.Generator:
        """Return a stream that is shared and the same in every round."""
        return rng.generator(self.seed, f"codec/{purpose}", self.block)


@dataclass(frozen=True)
class Setting:
    """How strongly one block is compressed in one round; public.

    Attributes:
        bits: An entry's, from 1 to 32 (`modint`, and the kept values of `topk`, from 2).
        fraction: Entries kept by `topk`, or coordinates of a sketch over the block's size.
        signs: Rotated entries of which `rot1bit` sends the sign, over the block's size.
        rank: Of `powersgd`.
        smallest: A sketch has at least so many coordinates, or as many as the block has entries.
        reach: Largest absolute entry, after the rotation, that the grid of `modint` spans. None
            takes it from the vector and sends it along, after which payloads of several
            institutions have different grids and can't be added.
        contract: Whether `rot1bit` takes the scale of least error instead of the unbiased one, as
            error feedback wants it.

    Raises:
        InputError: A value is out of range.
    """

    bits: int = 8
    fraction: float = 0.1
    rank: int = 2
    smallest: int = 64
    reach: float | None = None
    signs: float = 1.0
    contract: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 32:
            raise InputError("compression.bits", self.bits, "must be from 1 to 32")
        for value in (self.fraction, self.signs):
            if not 0.0 < value <= 1.0:
                raise InputError("compression.fraction", value, "must be in (0, 1]")
        for name in ("rank", "smallest"):
            if getattr(self, name) < 1:
                raise InputError(f"compression.{name}", getattr(self, name), "must be at least 1")
        if self.reach is not None and not TINY <= self.reach <= LARGEST:
            raise InputError("reach", self.reach, f"must be from {TINY:g} to {LARGEST:g}, or None")


class Codec(Protocol):
    """One way to write an update as bytes.

    Attributes:
        name: As in `compression.codec`.
        linear: Payloads hold numbers whose entry-wise sum over institutions decodes to the sum, so
            that they may be added under masks. `modint` needs a public `reach` for it.
        unbiased: The decoded vector has the encoded one as its expectation over the streams.
        paper: Where the construction is from.
    """

    name: str
    linear: bool
    unbiased: bool
    paper: str

    def encode(self, vector: Vector, setting: Setting, context: Context) -> bytes:
        """Return the payload.

        Args:
            vector: Flat float32, shape [size], size at least 1.
            setting: Strength.
            context: Streams.

        Raises:
            InputError: An entry is NaN, infinite or beyond `LARGEST`.
        """
        ...

    def decode(self, payload: Payload, size: int, setting: Setting, context: Context) -> Vector:
        """Return the vector that a payload stands for, float32 [size].

        Raises:
            ProtocolError: The payload is not one of this codec, size and setting.
        """
        ...


def checked(vector: Vector) -> tuple[Vector, float]:
    """Return the vector, contiguous, and its largest absolute entry.

    Raises:
        InputError: It is empty or not flat, or an entry is NaN, infinite or beyond `LARGEST`.

    >>> checked(np.array([0.5, -2.0], np.float32))[1]
    2.0
    """
    with np.errstate(over="ignore"):
        flat = np.ascontiguousarray(vector, dtype=np.float32)
    if vector.ndim != 1 or flat.size == 0:
        raise InputError("update", f"shape {vector.shape}", "must be flat, with one entry or more")
    peak = _peak(flat)
    if not peak <= LARGEST:
        remedy = f"entries must be finite and below {LARGEST:g}: lower the learning rate"
        raise InputError("update", f"an entry of {peak:g} is not finite or too large", remedy)
    return flat, peak


def floats(vector: Vector) -> bytes:
    """Return float32 values as little-endian bytes."""
    return np.ascontiguousarray(vector, dtype="<f4").tobytes()


def read_floats(payload: Payload, count: int) -> Vector:
    """Return `count` float32 values, in memory of their own.

    Raises:
        ProtocolError: The length is another, or a value is not finite or absurdly large.
    """
    if len(payload) != 4 * count:
        raise ProtocolError(f"{len(payload)} bytes do not hold {count} float32 values")
    values = np.frombuffer(payload, dtype="<f4").astype(np.float32)
    if count and not _peak(values) <= _LARGEST_ON_THE_WIRE:
        raise ProtocolError("a payload holds NaN, infinity or an absurd value")
    return values


def header(value: float) -> bytes:
    """Return a scale as the four bytes that open a payload."""
    return np.array(value, dtype="<f4").tobytes()


def read_header(payload: Payload) -> tuple[float, memoryview]:
    """Return the scale that opens a payload, and the rest.

    Raises:
        ProtocolError: The payload is too short, or the scale negative or not finite.
    """
    view = memoryview(payload)
    scale = float(read_floats(view[:_HEADER_BYTES], 1)[0])
    if scale < 0:
        raise ProtocolError(f"a payload opens with a scale of {scale:g}")
    return scale, view[_HEADER_BYTES:]


def halves(vector: Vector) -> bytes:
    """Return a scale and each entry over it as a half float: 4 + 2 * size bytes.

    The scale is the power of two above the largest entry, so that division loses nothing and no
    entry leaves the range of half floats. An entry is off by at most 2^-11 of itself plus 2^-25 of
    the scale.
    """
    values, peak = checked(vector)
    if peak < TINY:
        return header(0.0) + bytes(2 * values.size)
    scale = 2.0 ** math.frexp(peak)[1]
    return header(scale) + (values * np.float32(1 / scale)).astype("<f2").tobytes()


def read_halves(payload: Payload, count: int) -> Vector:
    """Return what `halves` wrote, float32 [count].

    Raises:
        ProtocolError: The length is another, or a value is out of range.
    """
    scale, rest = read_header(payload)
    if len(rest) != 2 * count:
        raise ProtocolError(f"{len(payload)} bytes do not hold {count} half floats and a scale")
    values = np.frombuffer(rest, dtype="<f2").astype(np.float32)
    if count and not _peak(values) <= 1.0:
        raise ProtocolError("a half float lies beyond its scale")
    values *= np.float32(scale)
    return values


def _peak(values: Vector) -> float:
    """Return the largest absolute entry; NaN stays NaN."""
    return max(float(values.max()), -float(values.min()))
