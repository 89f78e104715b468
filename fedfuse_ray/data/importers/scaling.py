"""Values to [0, 1] and arrays to a modality's shape.

| values | scaled by |
|---|---|
| 8-bit, 16-bit integers | their type's range, the same for every image |
| wider integers, floats | the image's own minimum and maximum |
| signals of any type | the signal's own minimum and maximum, after resampling |
| constant floats or signals | all zeros |
| NaN, infinity, complex | refused |
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from fedfuse_ray.errors import FedfuseError

Floats = npt.NDArray[np.float32]
AnyArray = npt.NDArray[Any]


class UndecodableError(FedfuseError):
    """A file is no usable image; the message says why, whoever catches it says which file."""


def by_range(values: AnyArray) -> Floats:
    """Scale an image's values to [0, 1], float32 of the same shape, as the table above says.

    Raises:
        UndecodableError: Not numbers, or not finite.
    """
    if values.dtype == np.bool_:
        return values.astype(np.float32)
    if values.dtype.kind in "iu" and values.dtype.itemsize <= 2:
        info = np.iinfo(values.dtype)
        span = np.float32(info.max - info.min)
        return np.asarray((values.astype(np.float32) - np.float32(info.min)) / span, np.float32)
    return stretch(values)


def stretch(values: AnyArray) -> Floats:
    """Map an array's minimum to 0 and its maximum to 1, float32 of the same shape.

    Raises:
        UndecodableError: Not numbers, or not finite.
    """
    if values.dtype.kind not in "biuf":
        raise UndecodableError(f"holds {values.dtype}, not numbers; save integers or floats")
    wide = values.astype(np.float64)
    if not np.isfinite(wide).all():
        raise UndecodableError("holds NaN or infinity; fill these values first")
    # Halved, since the span of the largest doubles is beyond a double.
    low = wide.min() / 2
    span = wide.max() / 2 - low
    scaled = (wide / 2 - low) / span if span > 0 else np.zeros_like(wide)
    return scaled.astype(np.float32)


def resize_image(planes: Floats, size: int) -> Floats:
    """Resize [C, H, W] to [C, size, size] by an antialiased bilinear filter; aspect is not kept."""
    return np.stack([_resize(plane, (size, size)) for plane in planes])


def resample_signal(signal: AnyArray, length: int) -> Floats:
    """Resample [C, L] to [C, length] and scale it to [0, 1], all channels by one factor.

    The bins that fall together are averaged before the scale is taken, so that a lone spike (a
    cosmic ray, a dead detector bin) in a long signal weighs less than a line of the spectrum.

    Raises:
        UndecodableError: Not numbers, or not finite.
    """
    scaled = stretch(signal)
    return stretch(np.stack([_resize(row[None], (length, 1))[0] for row in scaled]))


def _resize(plane: Floats, size: tuple[int, int]) -> Floats:
    if plane.shape == size[::-1]:
        return plane
    image = Pillow.fromarray(np.ascontiguousarray(plane))
    return np.asarray(image.resize(size, Pillow.Resampling.BILINEAR), np.float32)
