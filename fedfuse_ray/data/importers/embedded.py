"""Parquet with embedded images, `image: {bytes, path}` (the Hugging Face convention).

A row's bytes may be null with a path set; then the path is a file beside the Parquet. The image
column is streamed once into a spool, in memory while it is small and on the disk beyond, since
an institution's rows may lie anywhere in the file and Parquet can't be read row by row.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from fedfuse_ray.errors import InputError

SPOOL_BYTES = 256 << 20
"""Encoded images beyond this total go to a temporary file (its folder is `TMPDIR`)."""

_BATCH_BYTES = 32 << 20


class EmbeddedImages:
    """Images inside a Parquet file.

    Args:
        path: The file.
        places: Where each row stands, for errors.
        resolve: Turns (path, place) into a file inside the Parquet's folder, or raises.
    """

    def __init__(
        self, path: Path, places: Sequence[str], resolve: Callable[[str, str], Path]
    ) -> None:
        self._path, self._places, self._resolve = path, places, resolve
        self._spool: IO[bytes] | None = None
        self._extents: list[tuple[int, int] | None] = []
        self._names: list[str] = []

    def open(self, rows: Iterable[int]) -> Iterator[tuple[int, BinaryIO]]:
        """Yield each row's bytes as a file, in the order asked for."""
        spool = self._fill()
        for row in rows:
            extent = self._extents[row]
            if extent is not None:
                spool.seek(extent[0])
                yield row, io.BytesIO(spool.read(extent[1]))
            elif self._names[row]:
                with self._resolve(self._names[row], self._places[row]).open("rb") as file:
                    yield row, file
            else:
                remedy = "the row has neither bytes nor a path; give one, or remove the row"
                raise InputError(f"{self._places[row]}, image", None, remedy)

    def name(self, row: int) -> str:
        """Return the row's path, or `image` where there is none."""
        return (self._names[row] if self._names else "") or "image"

    def outside(self) -> Iterator[Path]:
        """Yield the files of the rows that have a path and no bytes."""
        self._fill()
        for name, extent, place in zip(self._names, self._extents, self._places, strict=True):
            if extent is None and name:
                yield self._resolve(name, place)

    def close(self) -> None:
        """Delete the spool."""
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    def _fill(self) -> IO[bytes]:
        if self._spool is not None:
            return self._spool
        self._spool = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115
        self._extents, self._names, end = [], [], 0
        for data, name in _stream(self._path):
            self._names.append(name or "")
            self._extents.append(None if data is None else (end, len(data)))
            if data is not None:
                self._spool.write(data)
                end += len(data)
        return self._spool


def _stream(path: Path) -> Iterator[tuple[pa.Buffer | None, str | None]]:
    """Yield (buffer or None, path or None) of each row."""
    try:
        # A buffered reader keeps a column chunk's pages on the disk until they are decoded.
        file = pq.ParquetFile(path, buffer_size=1 << 20)
        _check_type(path, file.schema_arrow.field("image").type)
        meta = file.metadata
        size = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
        batch = max(1, min(1024, _BATCH_BYTES * meta.num_rows // max(1, size)))
        for piece in file.iter_batches(batch_size=batch, columns=["image"]):
            yield from _rows(piece.column(0))
    except (pa.ArrowException, OSError) as error:
        remedy = f"its image column can't be read ({error}); write the file again"
        raise InputError("data.path", path, remedy) from None


def _rows(column: pa.StructArray) -> Iterator[tuple[pa.Buffer | None, str | None]]:
    names = [column.type.field(i).name for i in range(column.type.num_fields)]
    # `flatten` carries the struct's own nulls down to its fields; `field` does not.
    fields = dict(zip(names, column.flatten(), strict=True))
    data = fields["bytes"]
    paths = fields["path"].to_pylist() if "path" in fields else [None] * len(column)
    for scalar, name in zip(data, paths, strict=True):
        buffer = scalar.as_buffer() if scalar.is_valid else None
        yield buffer, name


def _check_type(path: Path, kind: pa.DataType) -> None:
    fields = {field.name: field.type for field in kind} if pa.types.is_struct(kind) else {}
    data = fields.get("bytes")
    if data is None or not (pa.types.is_binary(data) or pa.types.is_large_binary(data)):
        remedy = "the image column must be a struct of bytes (binary) and path (string)"
        raise InputError(f"{path}, image", kind, remedy)
