"""Manifests with embedded images, written in row groups of bounded size."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from fedfuse_ray.data.importers.checks import verify
from fedfuse_ray.data.importers.decoding import probe
from fedfuse_ray.data.importers.embedded import EmbeddedImages
from fedfuse_ray.data.importers.scaling import UndecodableError
from fedfuse_ray.data.importers.table import COLUMNS, PATIENT, Row, Table
from fedfuse_ray.errors import InputError
from fedfuse_ray.files import write_atomic

GROUP_BYTES = 32 << 20
"""Encoded images of one row group."""

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@dataclass(frozen=True)
class Entry:
    """A row, its encoded image, and the name that the image had."""

    row: Row
    data: bytes
    path: str


def write_manifest(
    path: Path, entries: Callable[[], Iterable[Entry]], *, patients: bool = False
) -> Path:
    """Write entries in order, atomically, and return the path; memory holds one row group.

    There is a column `patient_id` only where `patients` are known.

    What is written passes the checks of whoever reads it.

    Raises:
        InputError: Whatever `entries` raises, or the manifest would be refused as a whole or for
            one of its images; `path` keeps what it had.
    """
    names = [*COLUMNS, PATIENT] if patients else [*COLUMNS]
    schema = pa.schema([*((name, pa.string()) for name in names), ("image", _IMAGE)])
    write_atomic(path, lambda file: _checked(path, _write(file, schema, entries()), patients))
    return path


def _checked(path: Path, rows: list[Row], patients: bool) -> None:
    numbers = tuple(range(1, len(rows) + 1))
    unread = EmbeddedImages(path, (), lambda name, place: path / name)
    verify(Table(path, "row", numbers, tuple(rows), unread, patients=patients))


def _write(file: BinaryIO, schema: pa.Schema, entries: Iterable[Entry]) -> list[Row]:
    rows: list[Row] = []
    with pq.ParquetWriter(file, schema) as writer:
        group: list[Entry] = []
        size = 0
        for entry in entries:
            try:
                probe(io.BytesIO(entry.data))
            except UndecodableError as error:
                raise InputError("source", entry.path, str(error)) from None
            rows.append(entry.row)
            group.append(entry)
            size += len(entry.data)
            if size >= GROUP_BYTES:
                writer.write_table(_table(schema, group))
                group, size = [], 0
        if group:
            writer.write_table(_table(schema, group))
    return rows


def _table(schema: pa.Schema, group: list[Entry]) -> pa.Table:
    columns = list(zip(*(entry.row for entry in group), strict=True))[: len(schema) - 1]
    arrays = [pa.array(column, pa.string()) for column in columns]
    images = [{"bytes": entry.data, "path": entry.path} for entry in group]
    return pa.table([*arrays, pa.array(images, _IMAGE)], schema=schema)
