"""Named arrays and a few plain values in one checked file: whole or absent."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedfuse_ray.errors import FedfuseError
from fedfuse_ray.files import write_atomic

_META, _DIGEST = "meta", "digest"
Array = npt.NDArray[Any]


def write(path: Path, meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Write values and arrays atomically, with a digest over all of them.

    Args:
        path: The file, an uncompressed `.npz`.
        meta: Plain values, as JSON holds them.
        arrays: Arrays by name; `meta` is taken.
    """
    plain = json.dumps({**meta, _DIGEST: _digest(meta, arrays)})
    buffer = io.BytesIO()
    packed: dict[str, Any] = {_META: np.frombuffer(plain.encode(), np.uint8), **arrays}
    np.savez(buffer, **packed)
    write_atomic(path, lambda file: file.write(buffer.getbuffer()))


def read(path: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """Read what `write` wrote.

    Raises:
        FedfuseError: The file is missing, truncated or altered.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files if name != _META}
            meta = json.loads(archive[_META].tobytes())
        # The archive's own checksums miss an entry that fell out of its table of contents.
        if meta.pop(_DIGEST) != _digest(meta, arrays):
            raise ValueError("its digest does not fit what is in it")
    except Exception as error:  # numpy, zipfile and zlib raise many kinds for a broken archive
        raise FedfuseError(f"{path} can't be read: {error}") from None
    return meta, arrays


def _digest(meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> str:
    digest = hashlib.blake2b(json.dumps(meta, sort_keys=True).encode(), digest_size=16)
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(repr((name, array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
