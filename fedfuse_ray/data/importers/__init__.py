"""Importers: the user's own images and signals, named by a manifest.

A manifest has a row an image: `specimen_id, institution, domain, modality, label, split` and either
`path` (CSV or Parquet; relative to the manifest) or `image: {bytes, path}` (Parquet); `patient_id`
may say whose a specimen is. `read` turns it into the dataset that a federation trains on, `check`
looks without decoding, and `import_to_manifest` makes a manifest from a MedMNIST `.npz` or from a
tree of folders.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fedfuse_ray.config.settings.data import ManifestData
from fedfuse_ray.data.importers import reading
from fedfuse_ray.data.importers.checks import (
    Shared,
    held_tests,
    shared_patients,
    shared_specimens,
    shared_tests,
    split_of,
    verify,
)
from fedfuse_ray.data.importers.convert import import_folder, import_medmnist, import_to_manifest
from fedfuse_ray.data.importers.layout import Layout, arrange
from fedfuse_ray.data.importers.manifest import read_csv, read_parquet
from fedfuse_ray.data.importers.table import Table
from fedfuse_ray.data.specimens import Header, Parts
from fedfuse_ray.errors import InputError

__all__ = [
    "READERS",
    "VERSION",
    "Shared",
    "Summary",
    "check",
    "fingerprint",
    "has_patients",
    "held",
    "import_folder",
    "import_medmnist",
    "import_to_manifest",
    "read",
    "shared",
]

VERSION = 3
"""Raised when the same manifest would be read into other arrays."""

READERS: dict[str, Callable[[Path], Table]] = {
    ".csv": read_csv,
    ".parquet": read_parquet,
    ".pq": read_parquet,
}
"""A manifest's suffix to its reader."""


@dataclass(frozen=True)
class Summary:
    """What a manifest holds.

    Attributes:
        path: The manifest.
        rows: Its rows, one an image.
        header: Domains, classes, institutions, modalities and shapes.
        images: Number of images by (owner, modality, split), as the manifest has them; the owner
            of `test` is the domain.
        specimens: Number of specimens by (owner, split), after `held_out` took effect.
        held_out: Institutions without validation rows; 15% of their train specimens are held out.
        shared: Specimens that several institutions train on.
        patients: Number of patients of each institution's training specimens; empty where nobody
            knows.
        shared_patients: Patients that several institutions train on.
    """

    path: str
    rows: int
    header: Header
    images: dict[tuple[str, str, str], int]
    specimens: dict[tuple[str, str], int]
    held_out: tuple[str, ...]
    shared: tuple[Shared, ...] = ()
    patients: Mapping[str, int] = field(default_factory=dict)
    shared_patients: tuple[Shared, ...] = ()


def read(data: ManifestData, *, seed: int) -> tuple[Header, Parts]:
    """Read the user's images.

    The manifest's rows and every image's header are checked before this returns; images are
    decoded as the parts are taken, at most `reading.PART_BYTES` at a time. Images become float16
    [C, image_size, image_size] in [0, 1] (antialiased, aspect not kept; see `scaling` for the
    values), C = 3 if any image of the modality is in colour, else 1; signals become
    [C, signal_length].

    An institution without validation rows has a deterministic 15% of its train specimens held out
    (at least one of four or more, none of fewer; patients whole). Order is fixed: domains by first
    appearance, institutions sorted by name within their domain, modalities and classes sorted,
    specimens by first appearance.

    The seed decides which specimens are held out, and nothing else.

    Returns:
        The header, and parts: train and validation of each institution with the modalities that it
        owns, then test of each domain with all its modalities.

    Raises:
        InputError: The manifest or an image can't be used: names file, line, value and remedy.
            Errors inside an image's data are raised while the parts are taken.
    """
    table, layout, header = _open(data, seed)
    return header, reading.parts(table, layout, header)


def check(data: ManifestData) -> Summary:
    """Check a manifest's rows and every image's existence and header, without decoding.

    Raises:
        InputError: As `read`, but for errors inside an image's data.
    """
    table, layout, header = _open(data, seed=0)
    table.images.close()
    images = Counter(
        (row.domain if split_of(row) == "test" else row.institution, row.modality, split_of(row))
        for row in table.rows
    )
    return Summary(
        path=data.path,
        rows=len(table.rows),
        header=header,
        images=dict(sorted(images.items())),
        specimens={(owner, split): len(part) for (split, owner), part in layout.parts.items()},
        held_out=layout.held_out,
        shared=shared_specimens(table),
        patients={
            name: len({specimen.patient for specimen in layout.parts["train", name]})
            for name in layout.institutions
        }
        if table.patients
        else {},
        shared_patients=shared_patients(table),
    )


def shared(data: ManifestData, unit: str = "record") -> tuple[Shared, ...]:
    """Return the specimens, or patients, that several institutions train on; no image is opened.

    Raises:
        InputError: The manifest can't be read.
    """
    table = _load(data)
    table.images.close()
    return shared_patients(table) if unit == "patient" else shared_specimens(table)


def has_patients(data: ManifestData) -> bool:
    """Return whether the manifest says whose a specimen is.

    Raises:
        InputError: The manifest can't be read.
    """
    table = _load(data)
    table.images.close()
    return table.patients


def held(data: ManifestData) -> tuple[dict[str, str], tuple[Shared, ...]]:
    """Return which test sets institutions hold among themselves; no image is looked at.

    Returns:
        By domain, where the first test row stands, of those whose test rows all have an owner; and
        the test specimens that several institutions hold.

    Raises:
        InputError: The manifest can't be read.
    """
    table = _load(data)
    table.images.close()
    return held_tests(table), shared_tests(table)


def fingerprint(data: ManifestData) -> str:
    """Return a digest that changes when the manifest or an image file beside it does.

    The manifest counts with its content, image files with name, size and time of change.

    Raises:
        InputError: The manifest can't be read, or an image file is missing.
    """
    table = _load(data)
    digest = hashlib.blake2b(VERSION.to_bytes(4, "little"), digest_size=16)
    try:
        with table.path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        for path in table.images.outside():
            stat = path.stat()
            digest.update(repr((str(path), stat.st_size, stat.st_mtime_ns)).encode())
    finally:
        table.images.close()
    return digest.hexdigest()


def _open(data: ManifestData, seed: int) -> tuple[Table, Layout, Header]:
    table = _load(data)
    try:
        verify(table)
        layout = arrange(table, seed)
        shapes = reading.shapes(table, data)
    except BaseException:
        table.images.close()
        raise
    header = Header(layout.domains, layout.institutions, shapes, layout.held)
    return table, layout, header


def _load(data: ManifestData) -> Table:
    path = Path(data.path).expanduser()
    reader = READERS.get(path.suffix.lower())
    if path.is_dir() or path.suffix.lower() == ".npz":
        remedy = "is no manifest; make one from it: python -m fedfuse_ray data import"
        raise InputError("data.path", data.path, remedy)
    if not path.is_file():
        raise InputError("data.path", data.path, "no such file; give a manifest's path")
    if reader is None:
        remedy = f"a manifest's name ends in {', '.join(READERS)}"
        raise InputError("data.path", data.path, remedy)
    return reader(path)
