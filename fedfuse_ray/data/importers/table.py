"""The rows of a manifest, whatever file they came from, and access to the images they name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

COLUMNS = ("specimen_id", "institution", "domain", "modality", "label", "split")
"""What every manifest must have, beside `path` or `image`."""

PATIENT = "patient_id"
"""What a manifest may have: whose a specimen is."""

SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
"""Spelling in a manifest to the split's name."""


class Row(NamedTuple):
    """One image of one specimen, in the order of `COLUMNS`; text is stripped, absent is empty.

    `patient` is `PATIENT`'s cell; always empty in a manifest without that column.
    """

    specimen: str
    institution: str
    domain: str
    modality: str
    label: str
    split: str
    patient: str = ""


class Images(Protocol):
    """The encoded images of a table, by index of row."""

    def open(self, rows: Iterable[int]) -> Iterator[tuple[int, BinaryIO]]:
        """Yield each row's index and its encoded image, open until the next is asked for.

        Raises:
            InputError: The image is missing, or its path leaves the manifest's folder.
        """
        ...

    def name(self, row: int) -> str:
        """Return what the user calls the row's image: its path, or `image` when it has none."""
        ...

    def outside(self) -> Iterator[Path]:
        """Yield the files, other than the manifest, that hold the images.

        Raises:
            InputError: As `open`.
        """
        ...

    def close(self) -> None:
        """Free what the images occupy."""
        ...


@dataclass(frozen=True)
class Table:
    """A manifest that has been read but not yet checked.

    Attributes:
        path: The manifest's file.
        unit: What `numbers` count: `line` of a text file, or `row`.
        numbers: Where each row stands in the file, from 1.
        rows: The rows, with splits spelled as in the file.
        images: Their images.
        files: Each row's path as written, when the images are files; else empty.
        patients: Whether there is a column `PATIENT`.
    """

    path: Path
    unit: str
    numbers: tuple[int, ...]
    rows: tuple[Row, ...]
    images: Images
    files: tuple[str, ...] = ()
    patients: bool = False

    def where(self, row: int) -> str:
        """Return the place of a row as an error names it, such as `scans.csv line 7`."""
        return f"{self.path} {self.place(row)}"

    def place(self, row: int) -> str:
        """Return the place of a row in the file, such as `line 7`."""
        return f"{self.unit} {self.numbers[row]}"
