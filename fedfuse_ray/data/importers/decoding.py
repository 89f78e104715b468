"""From an encoded image to an array: PNG, JPEG, TIFF, NPY, and DICOM with the `dicom` extra.

The kind is told by a file's first bytes, never by its name. Files are untrusted: pickles are
refused, and a header that promises more than `MAX_PIXELS` is refused before anything is decoded.
Of a TIFF with several pages the first is read.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from PIL import ImageOps, TiffImagePlugin, UnidentifiedImageError

from fedfuse_ray.data.importers import dicom, npy
from fedfuse_ray.data.importers.scaling import (
    Floats,
    UndecodableError,
    by_range,
    resample_signal,
    resize_image,
)

MAX_PIXELS = 89_478_485
"""Pixels of the largest image read: a quarter of a GiB in 24 bits, Pillow's own default."""

_FORMATS = ("PNG", "JPEG", "TIFF")
_INTEGERS = ((TiffImagePlugin.BITSPERSAMPLE, 1), (TiffImagePlugin.SAMPLEFORMAT, 1))
_GRAY = {"1", "L", "LA", "La", "I", "F"}
_BYTES = (np.arange(256) / 255).astype(np.float16)


@dataclass(frozen=True)
class Form:
    """What a header tells: an image [C, H, W], gray (1) or in colour (3), or a signal [C, L].

    `size` is the longer side of an image in pixels, or a signal's length in bins.
    """

    kind: Literal["image", "signal"]
    channels: int
    size: int


def probe(file: BinaryIO) -> Form:
    """Read a file's header, and little more.

    Raises:
        UndecodableError: It is none of the known kinds, or too large.
    """
    with _decoding():
        head = _head(file)
        if npy.matches(head):
            found = npy.read_header(file, MAX_PIXELS).shape
            if npy.is_signal(found):
                return Form("signal", npy.channels(found), found[-1])
            return Form("image", npy.channels(found), max(found))
        if dicom.matches(head):
            return Form("image", *dicom.probe(file, MAX_PIXELS))
        with _open(file) as image:
            return Form("image", 1 if _is_gray(image) else 3, max(image.size))


def decode(file: BinaryIO, shape: tuple[int, ...]) -> npt.NDArray[np.float16]:
    """Decode a file, scale it to [0, 1] and resize it.

    The result is float16 of the shape, [C, size, size] of an image, [C, length] of a signal. A gray
    image is repeated where C is 3.

    Raises:
        UndecodableError: The file is truncated, damaged, too large, or holds NaN or infinity.
    """
    with _decoding():
        head = _head(file)
        if npy.matches(head):
            values = npy.read(file, MAX_PIXELS)
            if len(shape) == 2:
                return resample_signal(values, shape[1]).astype(np.float16)
            return _fit(by_range(values), shape)
        if dicom.matches(head):
            return _fit(dicom.read(file, MAX_PIXELS), shape)
        with _open(file) as image:
            return _decode_pillow(image, shape)


def _decode_pillow(image: Pillow.Image, shape: tuple[int, ...]) -> npt.NDArray[np.float16]:
    if image.format in {"JPEG", "MPO"}:
        # Twice the size leaves the filter enough to work on; a large photograph decodes faster.
        image.draft(None, (2 * shape[1], 2 * shape[2]))
        image = ImageOps.exif_transpose(image)
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        return _fit(by_range(_wide(image)[None]), shape)
    image = image.convert("RGB" if shape[0] == 3 else "L")
    if image.size != (shape[2], shape[1]):
        image = image.resize((shape[2], shape[1]), Pillow.Resampling.BILINEAR)
    planes = np.asarray(image).reshape(shape[1], shape[2], shape[0])
    scaled: npt.NDArray[np.float16] = _BYTES[planes.transpose(2, 0, 1)]
    return scaled


def _wide(image: Pillow.Image) -> npt.NDArray[np.generic]:
    """Return a gray image of more than 8 bits; Pillow takes all integers of 32 for signed ones."""
    values = np.asarray(image)
    if image.mode != "I" or not isinstance(image, TiffImagePlugin.TiffImageFile):
        return values
    bits, form = (image.tag_v2.get(tag, (default,)) for tag, default in _INTEGERS)
    unsigned = bits[0] == 32 and form[0] == 1
    return values.view(np.uint32) if unsigned else values


def _fit(planes: Floats, shape: tuple[int, ...]) -> npt.NDArray[np.float16]:
    resized = resize_image(planes, shape[1])
    return np.ascontiguousarray(np.broadcast_to(resized, shape)).astype(np.float16)


def _is_gray(image: Pillow.Image) -> bool:
    return image.mode in _GRAY or image.mode.startswith("I;16")


def _head(file: BinaryIO) -> bytes:
    head = file.read(dicom.HEAD_BYTES)
    file.seek(0)
    if not head:
        raise UndecodableError("the file is empty; replace it or remove the row")
    return head


def _open(file: BinaryIO) -> Pillow.Image:
    try:
        image = Pillow.open(file, formats=_FORMATS)
    except UnidentifiedImageError:
        raise UndecodableError(
            "can't be decoded: it is not a PNG, JPEG, TIFF, NPY or DICOM file; convert it, or "
            "remove the row"
        ) from None
    if image.width * image.height > MAX_PIXELS:
        raise _bomb()
    return image


def _bomb() -> UndecodableError:
    return UndecodableError(f"has more than {MAX_PIXELS} pixels; scale it down or tile it first")


@contextmanager
def _decoding() -> Iterator[None]:
    """Turn whatever a decoder raises on damaged input into `UndecodableError`."""
    with warnings.catch_warnings():
        # Decoders warn about odd metadata, which matters to nobody here.
        warnings.simplefilter("ignore")
        try:
            yield
        except UndecodableError:
            raise
        except Pillow.DecompressionBombError:
            raise _bomb() from None
        except MemoryError:
            raise
        except Exception as error:  # Decoders raise nearly anything on damaged input.
            reason = str(error) or type(error).__name__
            raise UndecodableError(
                f"can't be decoded, truncated or damaged ({reason}); replace the file or remove "
                "the row"
            ) from error
