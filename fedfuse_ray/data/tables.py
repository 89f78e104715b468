"""Arrow tables of specimens: fixed-shape tensors, written in batches, read by memory map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from fedfuse_ray.data.specimens import Image, Shape, Specimens, concatenate, select

_PRESENT = "present/"
_IMAGE = "image/"
_PATIENT = "patient"
"""A column that only tables of known patients have."""


class TableWriter:
    """Writes one table, a record batch a call; the file is complete once the writer is closed."""

    def __init__(
        self, path: Path, domain: str, shapes: dict[str, Shape], *, patients: bool = False
    ) -> None:
        self._shapes, self._patients = shapes, patients
        fields = [pa.field("id", pa.string()), pa.field("label", pa.int64())]
        fields += [pa.field(_PATIENT, pa.string())] * patients
        for modality, shape in shapes.items():
            tensor = pa.fixed_shape_tensor(pa.float16(), shape)
            fields += [
                pa.field(_PRESENT + modality, pa.bool_()),
                pa.field(_IMAGE + modality, tensor),
            ]
        self._schema = pa.schema(fields, metadata={"domain": domain})
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = pa.ipc.new_file(str(path), self._schema)

    def write(self, batch: Specimens) -> None:
        """Append specimens; modalities that the table lacks are left out."""
        columns = [pa.array(batch.ids, pa.string()), pa.array(batch.labels)]
        columns += [pa.array(batch.patients, pa.string())] * self._patients
        for modality, shape in self._shapes.items():
            column = batch.modalities.index(modality)
            flat = np.ascontiguousarray(batch.images[modality], np.float16).reshape(-1)
            storage = pa.FixedSizeListArray.from_arrays(pa.array(flat), int(np.prod(shape)))
            tensor = pa.fixed_shape_tensor(pa.float16(), shape)
            columns += [
                pa.array(batch.present[:, column]),
                pa.ExtensionArray.from_storage(tensor, storage),
            ]
        self._writer.write_batch(pa.record_batch(columns, schema=self._schema))

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()


def read_table(path: Path, rows: tuple[int, int] | None = None) -> Specimens:
    """Map a table into memory; images are read-only views of the file where they can be.

    `rows` are the first and the one past the last; all when None.
    """
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        domain = reader.schema.metadata[b"domain"].decode()
        batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        modalities = tuple(
            name.removeprefix(_IMAGE) for name in reader.schema.names if name.startswith(_IMAGE)
        )
    start, stop = rows if rows is not None else (0, sum(len(batch) for batch in batches))
    pieces = []
    offset = 0
    for batch in batches:
        low, high = max(start - offset, 0), min(stop - offset, len(batch))
        if low < high:
            pieces.append(_specimens(batch.slice(low, high - low), domain, modalities))
        offset += len(batch)
    if not pieces:
        return select(_specimens(batches[0], domain, modalities), slice(0, 0))
    return pieces[0] if len(pieces) == 1 else concatenate(pieces, modalities)


def read_patients(path: Path) -> list[str]:
    """Return whose each specimen of a table is; [] where nobody knows. No image is read."""
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        if _PATIENT not in reader.schema.names:
            return []
        batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        return [name for batch in batches for name in batch.column(_PATIENT).to_pylist()]


def _specimens(batch: pa.RecordBatch, domain: str, modalities: tuple[str, ...]) -> Specimens:
    return Specimens(
        domain=domain,
        modalities=modalities,
        ids=tuple(batch.column("id").to_pylist()),
        labels=batch.column("label").to_numpy(),
        images={m: _tensor(batch.column(_IMAGE + m)) for m in modalities},
        present=np.stack(
            [batch.column(_PRESENT + m).to_numpy(zero_copy_only=False) for m in modalities], axis=1
        ),
        patients=tuple(batch.column(_PATIENT).to_pylist())
        if _PATIENT in batch.schema.names
        else (),
    )


def _tensor(column: pa.ExtensionArray) -> Image:
    images: Image = column.to_numpy_ndarray()
    return images
