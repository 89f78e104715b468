"""Specimens as a manifest with embedded images, which the importer reads back."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fedfuse_ray.data.importers.table import Row
from fedfuse_ray.data.importers.writing import Entry
from fedfuse_ray.data.importers.writing import write_manifest as write_entries
from fedfuse_ray.data.specimens import Header, Part, Parts


def write_manifest(path: Path, header: Header, parts: Parts, *, patients: bool = False) -> int:
    """Write a dataset as one Parquet file, a row an image, and return the number of rows.

    There is a column `patient_id` only where `patients` are known.

    Images are NPY arrays of 16-bit integers over [0, 1], so that an importer scales all alike;
    signals too, which an importer stretches to their own range.
    """
    rows = 0

    def entries() -> Iterator[Entry]:
        nonlocal rows
        for part in parts:
            for entry in _entries(header, part):
                rows += 1
                yield entry

    write_entries(path, entries, patients=patients)
    return rows


def _entries(header: Header, part: Part) -> Iterator[Entry]:
    specimens = part.specimens
    classes = header.domains[specimens.domain].classes
    owner = "" if part.split == "test" else part.owner
    for index, name in enumerate(specimens.ids):
        for column, modality in enumerate(specimens.modalities):
            if not specimens.present[index, column]:
                continue
            label = classes[specimens.labels[index]]
            patient = specimens.patients[index] if specimens.patients else ""
            row = Row(name, owner, specimens.domain, modality, label, part.split, patient)
            image = specimens.images[modality][index].astype(np.float32)
            yield Entry(row, _npy(image), f"{name}-{modality}.npy")


def _npy(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.rint(image * 65535).astype(np.uint16))
    return buffer.getvalue()
