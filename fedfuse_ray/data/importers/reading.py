"""From a checked manifest to a dataset's header and parts, decoded lazily."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from fedfuse_ray.config.settings.data import ManifestData
from fedfuse_ray.data.importers.decoding import Form, decode, probe
from fedfuse_ray.data.importers.layout import Layout, Specimen
from fedfuse_ray.data.importers.scaling import UndecodableError
from fedfuse_ray.data.importers.table import Table
from fedfuse_ray.data.records import KEY, Keys, key_of
from fedfuse_ray.data.specimens import Header, Part, Parts, Shape, Specimens, Split
from fedfuse_ray.errors import InputError

PART_BYTES = 64 << 20
"""Decoded images of one part; an owner with more gets several parts."""
IMAGE_SIZES, SIGNAL_LENGTHS = (32, 128), (64, 1024)
"""Least and most that a modality's files decide, where the configuration leaves it to them."""


def shapes(table: Table, data: ManifestData) -> dict[str, Shape]:
    """Decide each modality's shape from the headers of all its images.

    A modality of images is in colour when any of its images is. A modality of signals has the
    channels that all its signals have. Where the configuration gives no size, it is the lower
    median over the modality's headers, within `IMAGE_SIZES` or `SIGNAL_LENGTHS`.

    Raises:
        InputError: An image is missing or no image at all, a modality mixes images and signals,
            or signals of several channel counts.
    """
    forms: dict[str, Form] = {}
    sizes: dict[str, list[int]] = {}
    for i, file in table.images.open(range(len(table.rows))):
        with _naming(table, i):
            form = probe(file)
        modality = table.rows[i].modality
        first = forms.setdefault(modality, form)
        sizes.setdefault(modality, []).append(form.size)
        other = form.kind == "signal" and form.channels != first.channels
        if form.kind != first.kind or other:
            remedy = (
                f"is {_describe(form)}, but {modality} began with {_describe(first)}; a modality "
                "has one shape, so give the other a modality of its own"
            )
            raise InputError(f"{table.where(i)}, {modality}", table.images.name(i), remedy)
        if form.channels > first.channels:
            forms[modality] = form
    return {name: _shape(forms[name], sizes[name], data) for name in sorted(forms)}


def parts(table: Table, layout: Layout, header: Header) -> Parts:
    """Decode train and validation of each institution, then each domain's test specimens.

    An institution with no validation specimens yields no such part. Memory is bounded by one
    part, whatever the manifest's size; the images are closed at the end.

    Raises:
        InputError: An image is truncated, damaged, too large, or holds NaN or infinity.
    """
    owners: list[tuple[Split, str, str, tuple[str, ...]]] = []
    for name, (domain, owned) in header.institutions.items():
        owners += [("train", name, domain, owned), ("validation", name, domain, owned)]
    for domain, info in header.domains.items():
        owners.append(("test", domain, domain, info.modalities))
    try:
        for split, owner, domain, modalities in owners:
            specimens = layout.parts[split, owner]
            size = sum(2 * math.prod(header.shapes[m]) for m in modalities)
            step = max(1, PART_BYTES // size)
            for start in range(0, len(specimens), step):
                batch = specimens[start : start + step]
                images = {m: header.shapes[m] for m in modalities}
                yield Part(split, owner, *_decode(table, domain, batch, images))
    finally:
        table.images.close()


def _decode(
    table: Table, domain: str, batch: Sequence[Specimen], shapes: dict[str, Shape]
) -> tuple[Specimens, Keys]:
    """Return specimens with the keys of their images, [N, M]."""
    modalities = tuple(shapes)
    images = {m: np.zeros((len(batch), *shapes[m]), np.float16) for m in modalities}
    present = np.zeros((len(batch), len(modalities)), bool)
    keys = np.zeros(present.shape, KEY)
    cells = {row: (n, m) for n, specimen in enumerate(batch) for m, row in specimen.rows.items()}
    for row, file in table.images.open(sorted(cells)):
        n, modality = cells[row]
        column = modalities.index(modality)
        keys[n, column] = key_of(file)
        with _naming(table, row):
            images[modality][n] = decode(file, shapes[modality])
        present[n, column] = True
    specimens = Specimens(
        domain=domain,
        modalities=modalities,
        ids=tuple(specimen.id for specimen in batch),
        labels=np.array([specimen.label for specimen in batch], np.int64),
        images=images,
        present=present,
        patients=tuple(specimen.patient for specimen in batch) if table.patients else (),
    )
    return specimens, keys


@contextmanager
def _naming(table: Table, row: int) -> Iterator[None]:
    try:
        yield
    except UndecodableError as error:
        field = f"{table.where(row)}, {table.rows[row].modality}"
        raise InputError(field, table.images.name(row), str(error)) from None


def _describe(form: Form) -> str:
    return f"{'an' if form.kind == 'image' else 'a'} {form.kind} of {form.channels} channel(s)"


def _shape(form: Form, sizes: list[int], data: ManifestData) -> Shape:
    if form.kind == "signal":
        return form.channels, data.signal_length or _median(sizes, SIGNAL_LENGTHS)
    size = data.image_size or _median(sizes, IMAGE_SIZES)
    return form.channels, size, size


def _median(sizes: list[int], bounds: tuple[int, int]) -> int:
    return min(max(statistics.median_low(sizes), bounds[0]), bounds[1])
