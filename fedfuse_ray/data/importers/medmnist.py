"""MedMNIST archives: `.npz` files with train, val and test images and labels.

An archive of 224-pixel images unpacks to many GiB, so images are streamed out of it.

Source: Yang et al., MedMNIST v2, 2023, arXiv:2110.14795.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from fedfuse_ray.data.importers import npy
from fedfuse_ray.data.importers.scaling import UndecodableError
from fedfuse_ray.errors import InputError

SPLITS = ("train", "val", "test")
_DAMAGED = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, UndecodableError)


def read_labels(path: Path) -> dict[str, npt.NDArray[np.int64]]:
    """Return each split's labels, int64 [N].

    Raises:
        InputError: No such archive, arrays are missing, or a specimen has several labels.
    """
    labels: dict[str, npt.NDArray[np.int64]] = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            wanted = [f"{split}_{what}" for split in SPLITS for what in ("images", "labels")]
            if missing := [name for name in wanted if name not in archive.files]:
                remedy = f"has no array {missing[0]}; a MedMNIST archive has {', '.join(wanted)}"
                raise InputError("source", path, remedy)
            for split in SPLITS:
                values = archive[f"{split}_labels"]
                if values.dtype.kind not in "iu" or values.size != len(values):
                    remedy = f"{split}_labels has shape {list(values.shape)}; give one a specimen"
                    raise InputError("source", path, f"{remedy}, integers [N] or [N, 1]")
                labels[split] = values.reshape(-1).astype(np.int64)
    except (*_DAMAGED, AttributeError, TypeError) as error:
        remedy = f"can't be read as a MedMNIST .npz ({error}); download it again"
        raise InputError("source", path, remedy) from None
    return labels


def stream_images(path: Path, split: str, count: int) -> Iterator[bytes]:
    """Yield a split's images as PNG, one at a time; there must be `count`, as many as labels.

    Raises:
        InputError: The array is not uint8 [count, H, W] or [count, H, W, 3], or is truncated.
    """
    name = f"{split}_images"
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as member:
            stream = cast("BinaryIO", member)
            header = npy.parse(stream)
            shape = header.shape
            flat = len(shape) == 3 or (len(shape) == 4 and shape[3] == 3)
            if not flat or header.dtype != np.uint8 or header.fortran or shape[0] != count:
                remedy = (
                    f"{name} is {header.dtype} {list(shape)}; give uint8 [{count}, H, W] or "
                    f"[{count}, H, W, 3], one image a label, in C order"
                )
                raise InputError("source", path, remedy)
            for _ in range(count):
                yield _png(stream, shape[1:])
    except _DAMAGED as error:
        remedy = f"{name} can't be read ({error}); download the archive again"
        raise InputError("source", path, remedy) from None


def _png(stream: BinaryIO, shape: tuple[int, ...]) -> bytes:
    size = int(np.prod(shape))
    data = stream.read(size)
    if len(data) != size:
        raise EOFError("the array is truncated")
    buffer = io.BytesIO()
    image = Pillow.fromarray(np.frombuffer(data, np.uint8).reshape(shape))
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
