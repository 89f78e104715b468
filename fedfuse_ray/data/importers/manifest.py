"""Manifests in CSV or Parquet whose rows name an image file relative to the manifest."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from fedfuse_ray.data.importers.embedded import EmbeddedImages
from fedfuse_ray.data.importers.table import COLUMNS, PATIENT, Row, Table
from fedfuse_ray.errors import InputError

_PATH = "write paths relative to the manifest's folder, with forward slashes, to files inside it"


class FileImages:
    """Images in files beside a manifest. A path that leads out of its folder is never opened."""

    def __init__(self, places: Sequence[str], paths: Sequence[str], folder: Path) -> None:
        self._places, self._paths, self._folder = places, paths, folder.resolve()

    def open(self, rows: Iterable[int]) -> Iterator[tuple[int, BinaryIO]]:
        """Yield each row's file, opened for reading, in the order asked for."""
        for row in rows:
            with resolve(self._folder, self._paths[row], self._places[row]).open("rb") as file:
                yield row, file

    def name(self, row: int) -> str:
        """Return the row's path as written."""
        return self._paths[row]

    def outside(self) -> Iterator[Path]:
        """Yield every row's file."""
        for path, place in zip(self._paths, self._places, strict=True):
            yield resolve(self._folder, path, place)

    def close(self) -> None:
        """Nothing is kept open between files."""


def resolve(folder: Path, path: str, place: str) -> Path:
    """Return the regular file that a manifest's row names, links followed.

    The manifest's folder is resolved already; `place` tells where the row stands, for errors.

    Raises:
        InputError: The path is empty, absolute, holds `..`, leads out of `folder` by a link, or
            is not a file.
    """
    field = f"{place}, path"
    posix, windows = PurePosixPath(path), PureWindowsPath(path)
    outside = posix.is_absolute() or bool(windows.drive or windows.root)
    if not path or "\0" in path:
        raise InputError(field, path, f"names no file; {_PATH}")
    if outside or ".." in posix.parts or ".." in windows.parts:
        raise InputError(field, path, f"is outside the manifest's folder {folder}; {_PATH}")
    try:
        target = (folder / posix).resolve()
        if not target.is_relative_to(folder):
            raise InputError(field, path, f"is a link out of the manifest's folder; {_PATH}")
        if target.is_file():
            return target
    except (OSError, RuntimeError) as error:
        raise InputError(field, path, f"can't be opened ({error}); {_PATH}") from None
    raise InputError(field, path, f"is missing, no such file in {folder}; {_PATH}")


def read_csv(path: Path) -> Table:
    """Read a comma-separated manifest in UTF-8 with a header line.

    Raises:
        InputError: A column is missing, a line has another number of fields than the header, or
            the file is not UTF-8 text.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            require(path, header, (*COLUMNS, "path"))
            lines = [(reader.line_num, fields) for fields in reader if fields]
    except (csv.Error, UnicodeDecodeError) as error:
        remedy = f"is not comma-separated UTF-8 text ({error}); save it as CSV UTF-8"
        raise InputError("data.path", path, remedy) from None
    for number, fields in lines:
        if len(fields) != len(header):
            remedy = f"the line has {len(fields)} fields, the header {len(header)}; quote commas"
            raise InputError(f"{path} line {number}", ",".join(fields), remedy)
    names = columns_of(path, header)
    order = [header.index(name) for name in (*names, "path")]
    cells = [[fields[i].strip() for i in order] for _, fields in lines]
    numbers = tuple(number for number, _ in lines)
    places = [f"{path} line {number}" for number in numbers]
    files = tuple(row[-1] for row in cells)
    images = FileImages(places, files, path.parent)
    rows = tuple(Row(*row[:-1]) for row in cells)
    return Table(path, "line", numbers, rows, images, files, PATIENT in names)


def read_parquet(path: Path) -> Table:
    """Read a Parquet manifest, with a `path` column or with embedded images in `image`.

    Raises:
        InputError: The file is not Parquet, or a column is missing or of a wrong type.
    """
    try:
        schema = pq.read_schema(path)
        source = "image" if "image" in schema.names else "path"
        require(path, schema.names, (*COLUMNS, source))
        # The images themselves stay on the disk until they are asked for.
        names = columns_of(path, schema.names)
        text = names if source == "image" else [*names, "path"]
        columns = pq.ParquetFile(path).read(columns=text)
        cells = [texts(path, name, columns.column(name)) for name in text]
    except (pa.ArrowException, OSError) as error:
        remedy = f"is not a readable Parquet file ({error}); write it again"
        raise InputError("data.path", path, remedy) from None
    numbers = tuple(range(1, columns.num_rows + 1))
    places = [f"{path} row {number}" for number in numbers]
    rows = tuple(Row(*row) for row in zip(*cells[: len(names)], strict=True))
    if source == "path":
        files = tuple(cells[-1])
        images = FileImages(places, files, path.parent)
        return Table(path, "row", numbers, rows, images, files, PATIENT in names)
    folder = path.parent.resolve()
    embedded = EmbeddedImages(path, places, lambda name, place: resolve(folder, name, place))
    return Table(path, "row", numbers, rows, embedded, patients=PATIENT in names)


def texts(path: Path, name: str, column: pa.ChunkedArray) -> list[str]:
    """Return a column as stripped text; null is empty, and 3.0 (pandas' way with nulls) is 3.

    Raises:
        InputError: The column holds neither text nor numbers.
    """
    kind = column.type
    try:
        if pa.types.is_floating(kind):
            whole = all(value is None or value == int(value) for value in column.to_pylist())
            column = column.cast(pa.int64()) if whole else column
        values = column.cast(pa.string()).to_pylist()
    except (pa.ArrowException, OverflowError, ValueError):
        raise InputError(f"{path}, {name}", kind, "write the column as text or numbers") from None
    return ["" if value is None else value.strip() for value in values]


def columns_of(path: Path, found: Sequence[str]) -> list[str]:
    """Return the columns that become a `Row`, in its order; `found` are the file's.

    Raises:
        InputError: The column of patients stands twice.
    """
    if PATIENT not in found:
        return [*COLUMNS]
    require(path, found, (*COLUMNS, PATIENT))
    return [*COLUMNS, PATIENT]


def require(path: Path, found: Sequence[str], wanted: Sequence[str]) -> None:
    """Check that a manifest has its columns, each once.

    Raises:
        InputError: Names the missing column.
    """
    for name in wanted:
        if found.count(name) != 1:
            problem = "is missing" if name not in found else "stands twice"
            remedy = f"column {name} {problem}; a manifest has {', '.join(wanted)}"
            raise InputError(f"{path}, header", ", ".join(found), remedy)
