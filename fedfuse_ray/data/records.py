"""What a record is known by, whatever file, path or order it came in: digests of its images.

The digest is that of an image's bytes as they were read, before they are decoded or resized, so an
image keeps its key in another manifest, in another folder, and at another size. Of generated
specimens there are no such bytes; their arrays stand in.

Keys tell whoever has an image whether it is in the data, so they stay with the data.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from fedfuse_ray.data.specimens import Specimens

KEY_BYTES = 16
_BLOCK_BYTES = 1 << 20
Keys = npt.NDArray[np.bytes_]
"""Keys of images, `S16`; b"" where there is no image."""
KEY = np.dtype(f"S{KEY_BYTES}")


def key_of(file: BinaryIO) -> bytes:
    """Return the key of an encoded image: the first 128 bits of the SHA-256 of what is left.

    The file is read to its end piece by piece, and put back to where it was.
    """
    begin = file.tell()
    digest = hashlib.sha256()
    while block := file.read(_BLOCK_BYTES):
        digest.update(block)
    file.seek(begin)
    return digest.digest()[:KEY_BYTES]


def keys_of_arrays(specimens: Specimens) -> Keys:
    """Return the keys of images that never were a file, [N, M]."""
    keys = np.zeros(specimens.present.shape, KEY)
    for column, modality in enumerate(specimens.modalities):
        images = specimens.images[modality]
        for row in np.flatnonzero(specimens.present[:, column]):
            keys[row, column] = hashlib.sha256(images[row].tobytes()).digest()[:KEY_BYTES]
    return keys


def write_keys(path: Path, parts: list[Keys]) -> None:
    """Write all keys of an institution, a row a specimen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.concatenate(parts))


def read_keys(path: Path) -> Keys:
    """Return what `write_keys` wrote, [N, M]."""
    keys: Keys = np.load(path, allow_pickle=False)
    return keys
