"""DICOM files with one frame, by pydicom (the `dicom` extra).

Stored values go through the modality's rescale and the file's own window where it has one; gray
images that store white as zero are inverted; the result is scaled by its minimum and maximum.
Private and patient data elements are never read into a result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from fedfuse_ray.data.importers.scaling import Floats, UndecodableError, by_range, stretch

if TYPE_CHECKING:
    from pydicom import Dataset

HEAD_BYTES = 132
"""The preamble and the four letters that mark a DICOM file."""


def matches(head: bytes) -> bool:
    """Tell whether a file that starts with `head` is a DICOM."""
    return head[128:HEAD_BYTES] == b"DICM"


def probe(file: BinaryIO, limit: int) -> tuple[int, int]:
    """Return the channels of a DICOM image, 1 or 3, and its longer side, from its header.

    Raises:
        UndecodableError: pydicom is not installed, or see `read`.
    """
    dataset = _dataset(file, limit, header_only=True)
    return _channels(dataset), max(int(dataset.Rows), int(dataset.Columns))


def read(file: BinaryIO, limit: int) -> Floats:
    """Return a DICOM image of at most `limit` pixels as planes [C, H, W] in [0, 1].

    Raises:
        UndecodableError: pydicom is not installed, several frames, no pixels, or too many.
    """
    dataset = _dataset(file, limit, header_only=False)
    from pydicom import pixels

    values = dataset.pixel_array
    if _has_palette(dataset):
        return by_range(np.moveaxis(pixels.apply_color_lut(values, dataset), -1, 0))
    if _channels(dataset) == 3:
        return by_range(np.moveaxis(values, -1, 0))
    values = pixels.apply_voi_lut(pixels.apply_modality_lut(values, dataset), dataset)
    scaled = stretch(np.asarray(values)[None])
    inverted = dataset.get("PhotometricInterpretation") == "MONOCHROME1"
    return 1 - scaled if inverted else scaled


def _dataset(file: BinaryIO, limit: int, *, header_only: bool) -> Dataset:
    try:
        from pydicom import dcmread
    except ImportError:
        remedy = "is a DICOM file, which needs pydicom: pip install 'fedfuse-ray[dicom]'"
        raise UndecodableError(remedy) from None
    dataset = dcmread(file, stop_before_pixels=header_only)
    if "Rows" not in dataset or "Columns" not in dataset:
        raise UndecodableError("is a DICOM file without an image; remove the row")
    if int(dataset.get("NumberOfFrames", 1) or 1) != 1:
        raise UndecodableError("holds several frames; save each as its own file")
    if int(dataset.Rows) * int(dataset.Columns) > limit:
        raise UndecodableError(f"has more than {limit} pixels; scale it down or tile it first")
    return dataset


def _channels(dataset: Dataset) -> int:
    return 3 if int(dataset.get("SamplesPerPixel", 1)) == 3 or _has_palette(dataset) else 1


def _has_palette(dataset: Dataset) -> bool:
    return bool(dataset.get("PhotometricInterpretation") == "PALETTE COLOR")
