"""NPY arrays: images and one-dimensional signals.

| shape | read as |
|---|---|
| [L] | signal, one channel |
| [C, L], C at most 4 and L at least 16 | signal, C channels |
| [H, W], any other | gray image |
| [H, W, 1], [H, W, 3] | gray or colour image |
| [1, H, W], [3, H, W] | gray or colour image |
"""

from __future__ import annotations

import io
import math
import os
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from fedfuse_ray.data.importers.scaling import AnyArray, UndecodableError

_MAGIC = b"\x93NUMPY"


@dataclass(frozen=True)
class NpyHeader:
    """Shape, memory order, type and first byte of an array in a file."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[np.generic]
    offset: int


def matches(head: bytes) -> bool:
    """Tell whether a file that starts with `head` is an NPY."""
    return head.startswith(_MAGIC)


def is_signal(shape: tuple[int, ...]) -> bool:
    """Tell a signal from an image by its array's shape, as the table above says."""
    return len(shape) == 1 or (len(shape) == 2 and shape[0] <= 4 and shape[1] >= 16)


def channels(shape: tuple[int, ...]) -> int:
    """Return how many channels an array of this shape has.

    Raises:
        UndecodableError: It is neither an image nor a signal.
    """
    if len(shape) == 1:
        return 1
    if len(shape) == 2:
        return shape[0] if is_signal(shape) else 1
    if len(shape) == 3 and shape[2] in {1, 3}:
        return shape[2]
    if len(shape) == 3 and shape[0] in {1, 3}:
        return shape[0]
    raise UndecodableError(
        f"holds an array of shape {list(shape)}; give [H, W], [H, W, 3] or [3, H, W] for an "
        "image, [L] or [C, L] with at most 4 channels for a signal"
    )


def read_header(file: BinaryIO, limit: int) -> NpyHeader:
    """Read an array's header; nothing is unpickled and nothing large is allocated.

    The largest array allowed has `limit` elements a channel.

    Raises:
        UndecodableError: Object or structured arrays, empty or too large ones, and files shorter
            than their header promises.
    """
    header = parse(file)
    size = math.prod(header.shape)
    if size == 0:
        raise UndecodableError(f"holds an empty array of shape {list(header.shape)}")
    if size > 4 * limit or size // channels(header.shape) > limit:
        raise UndecodableError(f"has more than {limit} values; scale it down first")
    end = file.seek(0, os.SEEK_END)
    if end - header.offset < size * header.dtype.itemsize:
        raise UndecodableError("is truncated: its header promises more; replace the file")
    return header


def parse(file: BinaryIO) -> NpyHeader:
    """Read the header of an NPY file or stream, and leave it at the array's first byte.

    Raises:
        UndecodableError: Object or structured arrays.
    """
    version = np.lib.format.read_magic(file)
    reader = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if reader is None:
        raise UndecodableError(f"has NPY version {version}; save a plain array of numbers")
    shape, fortran, dtype = reader(file)
    if dtype.hasobject or dtype.kind not in "biuf":
        raise UndecodableError(f"holds {dtype}, not numbers; save integers or floats")
    return NpyHeader(shape, fortran, dtype, file.tell())


def read(file: BinaryIO, limit: int) -> AnyArray:
    """Read an array as planes: [C, H, W] of an image, [C, L] of a signal.

    Raises:
        UndecodableError: As `read_header`.
    """
    shape = read_header(file, limit).shape
    file.seek(0)
    values: AnyArray = np.load(io.BytesIO(file.read()), allow_pickle=False)
    if len(shape) == 3:
        return values.transpose(2, 0, 1) if shape[2] in {1, 3} else values
    return values if is_signal(shape) and len(shape) == 2 else values[None]
