"""Atomic writes: a reader, or a resumed run, sees a whole file or none. And where the cache is."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fedfuse_ray.errors import StorageError

_UNFINISHED = ".tmp"


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Name the file in whatever goes wrong while it is written.

    Raises:
        StorageError: The disk is full, or the folder is not writable.
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(path, error.strerror or str(error)) from error


def write_atomic(path: Path, write: Callable[[BinaryIO], object], *, mode: int = 0o644) -> None:
    """Write a file beside `path`, flush it to the disk, then rename it into place.

    Args:
        path: The file to replace; its folder is created when missing.
        write: Called with the open binary file.
        mode: The file's permissions.

    Raises:
        StorageError: The disk is full or the folder is not writable; `path` keeps what it had.
    """
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(_UNFINISHED, f".{path.name}.", path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(mode)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def remove_unfinished(folder: Path) -> None:
    """Remove what processes that were killed while writing left in a folder and those below."""
    for path in folder.rglob(f".*{_UNFINISHED}"):
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    write_atomic(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON, atomically; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def cache_folder() -> Path:
    """Return where datasets and pre-trained encoders are kept between runs.

    `$FEDFUSE_RAY_CACHE`, else `fedfuse_ray` in the user's cache folder.
    """
    if chosen := os.environ.get("FEDFUSE_RAY_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fedfuse_ray"
