"""Manifests with embedded images, written in row groups of bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from fedfuse_ray.data.importers.table import COLUMNS, Row
from fedfuse_ray.files import write_atomic

GROUP_BYTES = 32 << 20
"""Encoded images of one row group."""

_SCHEMA = pa.schema(
    [(name, pa.string()) for name in COLUMNS]
    + [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
)


@dataclass(frozen=True)
class Entry:
    """A row, its encoded image, and the name that the image had."""

    row: Row
    data: bytes
    path: str


def write_manifest(path: Path, entries: Callable[[], Iterable[Entry]]) -> Path:
    """Write entries in order, atomically, and return the path; memory holds one row group.

    Raises:
        InputError: Whatever `entries` raises; `path` keeps what it had.
    """
    write_atomic(path, lambda file: _write(file, entries()))
    return path


def _write(file: BinaryIO, entries: Iterable[Entry]) -> None:
    with pq.ParquetWriter(file, _SCHEMA) as writer:
        group: list[Entry] = []
        size = 0
        for entry in entries:
            group.append(entry)
            size += len(entry.data)
            if size >= GROUP_BYTES:
                writer.write_table(_table(group))
                group, size = [], 0
        if group:
            writer.write_table(_table(group))


def _table(group: list[Entry]) -> pa.Table:
    columns = zip(*(entry.row for entry in group), strict=True)
    arrays = [pa.array(column, pa.string()) for column in columns]
    images = [{"bytes": entry.data, "path": entry.path} for entry in group]
    return pa.table([*arrays, pa.array(images, _SCHEMA.field("image").type)], schema=_SCHEMA)
