"""Files of a result folder, read and checked: every fault becomes an `InputError` that names it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ValidationError

from fedfuse_ray.errors import InputError

Model = TypeVar("Model", bound=BaseModel)

_UNFINISHED = "a run's folder holds this file once the run is done; finish it with --resume"
_BROKEN = "the file is broken; bring back a copy, or run again: the same seed gives the same result"


def read_parquet(
    path: Path, schema: pa.Schema, later: Mapping[str, object] | None = None
) -> pa.Table:
    """Read a table that has at least the schema's columns.

    Those in `later` may be missing from an older folder, and are filled with its values.

    Raises:
        InputError: The file is missing or broken, or lacks any other column.
    """
    _require(path)
    try:
        # `read_table` would take a folder named `lr=0.1` for a partition and add a column.
        with pq.ParquetFile(path) as file:
            table = file.read()
    except (OSError, pa.ArrowException) as error:
        raise InputError(str(path), error, _BROKEN) from None
    for wanted in schema:
        if wanted.name not in table.column_names:
            if later is not None and wanted.name in later:
                filled = pa.repeat(pa.scalar(later[wanted.name], wanted.type), table.num_rows)
                table = table.append_column(wanted, filled)
                continue
            raise InputError(str(path), f"no column {wanted.name}", _BROKEN)
        if table.schema.field(wanted.name).type != wanted.type:
            raise InputError(str(path), f"{wanted.name} is not {wanted.type}", _BROKEN)
    return table


def _require(path: Path) -> None:
    if not path.is_file():
        raise InputError(str(path), "missing", _UNFINISHED)


def read_text(path: Path) -> str:
    """Read a text file."""
    _require(path)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(path), error, _BROKEN) from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    return parse(str(path), read_text(path))


def parse(where: str, text: str) -> dict[str, Any]:
    """Parse a JSON object that stands at `where`."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InputError(where, error, _BROKEN) from None
    if not isinstance(value, dict):
        raise InputError(where, type(value).__name__, _BROKEN)
    return value


def read_model(path: Path, model: type[Model]) -> Model:
    """Read a JSON file into a model."""
    return validate(str(path), read_json(path), model)


def validate(where: str, value: Any, model: type[Model]) -> Model:
    """Validate a plain value that stands at `where`."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "content"
        raise InputError(where, f"{field}: {first['msg']}", _BROKEN) from None
