"""A dataset on disk: an index, and one Arrow table for each split and owner."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from fedfuse_ray.config.settings.data import ManifestData, PhantomData
from fedfuse_ray.config.settings.institutions import InstitutionConfig
from fedfuse_ray.data.index import DatasetIndex, index_of, read_index
from fedfuse_ray.data.records import Keys, keys_of_arrays, read_keys, write_keys
from fedfuse_ray.data.specimens import (
    Header,
    Parts,
    Specimens,
    Split,
    concatenate,
    select,
)
from fedfuse_ray.data.tables import TableWriter, read_patients, read_table
from fedfuse_ray.errors import FedfuseError, InputError, StorageError
from fedfuse_ray.files import cache_folder, write_json

_FORMAT = 4
_PHANTOMS = 1
"""Raised whenever the same request would generate other specimens."""
_INDEX = "index.json"
Institutions = tuple[InstitutionConfig, ...]
Source = Callable[[PhantomData | ManifestData, Institutions, int, int], tuple[Header, Parts]]
"""From data, institutions, seed and replicas to specimens."""
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Dataset:
    """A dataset's folder, opened for reading.

    Raises:
        FedfuseError: The folder holds no complete dataset.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.index = read_index(folder / _INDEX)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FedfuseError(f"dataset {folder} can't be read: {error}") from None

    def split(self, split: Split, institutions: Sequence[str]) -> Specimens:
        """Return the train or validation specimens of one institution, or of several together."""
        domain = self.index.domains[self.index.institutions[institutions[0]].domain]
        owned = {m for name in institutions for m in self.index.institutions[name].modalities}
        batches = [self._own(split, name) for name in institutions]
        if len(batches) == 1:
            return batches[0]
        return concatenate(batches, [m for m in domain.modalities if m in owned])

    def _own(self, split: Split, name: str) -> Specimens:
        if split == "validation" and not self.index.institutions[name].validation:
            return select(read_table(_table(self.folder, "train", name)), slice(0, 0))
        return read_table(_table(self.folder, split, name))

    def records(self, institution: str) -> Keys:
        """Return the keys of images, [N, M], of training, then validation; b"" where none is."""
        return read_keys(_keys(self.folder, institution))

    def patients(self, institution: str) -> list[str]:
        """Return whose each training specimen of an institution is; [] where nobody knows."""
        return read_patients(_table(self.folder, "train", institution))

    def test(self, domain: str, part: int = 0, parts: int = 1) -> Specimens:
        """Return one of `parts` contiguous parts of a domain's test set."""
        return self._tests(domain, self.index.test[domain], part, parts)

    def public_test(self, domain: str, part: int = 0, parts: int = 1) -> Specimens:
        """Return one of `parts` contiguous parts of the test specimens that no institution holds.

        That may be none.
        """
        return self._tests(domain, self.index.public_tests(domain), part, parts)

    def _tests(self, domain: str, count: int, part: int, parts: int) -> Specimens:
        rows = (part * count // parts, (part + 1) * count // parts)
        return read_table(_table(self.folder, "test", domain), rows)

    def held_test(self, institutions: Sequence[str]) -> Specimens:
        """Return the test specimens that some institutions of one domain hold."""
        infos = self.index.institutions
        domain = infos[institutions[0]].domain
        whole = read_table(_table(self.folder, "test", domain))
        holders = [""] * self.index.public_tests(domain)
        for name, info in infos.items():
            if info.domain == domain:
                holders += [name] * self.index.held.get(name, 0)
        return select(whole, np.flatnonzero(np.isin(holders, list(institutions))))


def prepare(
    data: PhantomData | ManifestData,
    institutions: Institutions,
    *,
    seed: int,
    replicas: int = 1,
    cache: Path | None = None,
    source: Source | None = None,
) -> Dataset:
    """Generate or import a dataset, once: the same request finds it in the cache.

    Args:
        data: What specimens there are.
        institutions: Who has them.
        seed: Of the generator, and of splits.
        replicas: How many like each institution there are.
        cache: Where datasets are kept; by default the user's cache folder.
        source: Makes the specimens of a new dataset; by default `make_specimens`.

    Raises:
        InputError: Unusable images or manifest.
    """
    root = cache if cache is not None else cache_folder()
    folder = root / "data" / _fingerprint(data, institutions, seed, replicas)
    if not (folder / _INDEX).is_file():
        header, parts = (source or make_specimens)(data, institutions, seed, replicas)
        write(folder, header, parts)
    return Dataset(folder)


def outline(
    data: PhantomData | ManifestData,
    institutions: Institutions,
    *,
    seed: int,
    replicas: int = 1,
) -> DatasetIndex:
    """Return the index that `prepare` would come to; generated specimens are only counted.

    Raises:
        InputError: Unusable images or manifest.
    """
    if not isinstance(data, PhantomData):
        return prepare(data, institutions, seed=seed, replicas=replicas).index
    from fedfuse_ray.data.phantoms import count, generate

    header, _ = generate(data, institutions, seed=seed, replicas=replicas)
    counts, of_each = (
        count(data, institutions, seed=seed, replicas=replicas),
        data.specimens_per_patient,
    )
    patients = {owner: -(-n // of_each) for (split, owner), n in counts.items() if split == "train"}
    return index_of(header, counts, patients if of_each > 1 else {})


def write(folder: Path, header: Header, parts: Parts) -> None:
    """Write all parts as tables and the index last, then move the folder into place.

    Raises:
        StorageError: The disk is full; nothing of the dataset is left.
    """
    try:
        _write(folder, header, parts)
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        remedy = "make room there, or name another place as FEDFUSE_RAY_CACHE"
        raise StorageError(folder, os.strerror(error.errno), remedy) from error


def _write(folder: Path, header: Header, parts: Parts) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".making-"))
    try:
        counts, patients = _write_tables(temporary, header, parts)
        index = index_of(header, counts, patients)
        digest = _digest(temporary, index.institutions)
        write_json(temporary / _INDEX, asdict(replace(index, digest=digest)))
        try:
            temporary.rename(folder)
        except OSError:  # Another process was faster, and made the same.
            if not (folder / _INDEX).is_file():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def make_specimens(
    data: PhantomData | ManifestData,
    institutions: Institutions,
    seed: int,
    replicas: int,
) -> tuple[Header, Parts]:
    """Generate specimens, or read the user's own.

    Raises:
        InputError: Unusable images or manifest.
    """
    if isinstance(data, PhantomData):
        from fedfuse_ray.data.phantoms import generate

        return generate(data, institutions, seed=seed, replicas=replicas)
    from fedfuse_ray.data.importers import read

    if replicas > 1:
        raise InputError("replicas", replicas, "only generated data can be replicated; set it to 1")
    return read(data, seed=seed)


def _fingerprint(
    data: PhantomData | ManifestData,
    institutions: Institutions,
    seed: int,
    replicas: int,
) -> str:
    request = {
        "format": _FORMAT,
        "data": data.model_dump(mode="json", exclude={"forward_models"}),
        "seed": seed,
        "replicas": replicas,
    }
    if isinstance(data, PhantomData):
        request["phantoms"] = _PHANTOMS
        if data.forward_models:  # their content decides, wherever they lie
            from fedfuse_ray.data.phantoms.from_file import file_digest

            request["forward_models"] = [file_digest(file) for file in data.forward_models]
        request["institutions"] = [
            i.model_dump(mode="json", include={"name", "domain", "modalities", "share"})
            for i in institutions
        ]
        if absent := [i.name for i in institutions if not i.takes_part]:
            request["absent"] = absent
    else:
        from fedfuse_ray.data.importers import fingerprint

        request["files"] = fingerprint(data)
    return hashlib.blake2b(json.dumps(request).encode(), digest_size=12).hexdigest()


def _write_tables(
    folder: Path, header: Header, parts: Parts
) -> tuple[dict[tuple[str, str], int], dict[str, int]]:
    """Write all tables; returns specimens by split and owner, and patients by institution."""
    counts: dict[tuple[str, str], int] = {}
    keys: dict[str, list[Keys]] = {}
    patients: dict[str, set[str]] = {}
    open_for: tuple[str, str] | None = None
    with ExitStack() as stack:
        for part in parts:
            key = (part.split, part.owner)
            if key != open_for:
                if key in counts:
                    raise FedfuseError(f"parts of {key} do not follow each other")
                stack.close()
                batch = part.specimens
                shapes = {m: header.shapes[m] for m in batch.modalities}
                writer = stack.enter_context(
                    TableWriter(
                        _table(folder, part.split, part.owner),
                        batch.domain,
                        shapes,
                        patients=bool(batch.patients),
                    )
                )
                open_for, counts[key] = key, 0
            writer.write(part.specimens)
            counts[key] += len(part.specimens)
            if part.split == "train":
                patients.setdefault(part.owner, set()).update(part.specimens.patients)
            if part.split != "test":
                own = keys_of_arrays(part.specimens) if part.keys is None else part.keys
                keys.setdefault(part.owner, []).append(own)
    for owner, found in keys.items():
        write_keys(_keys(folder, owner), found)
    return counts, {owner: len(names) for owner, names in patients.items()}


def _digest(folder: Path, institutions: Iterable[str]) -> str:
    """Return the digest of all training tables."""
    whole = hashlib.sha256()
    for name in sorted(institutions):
        with _table(folder, "train", name).open("rb") as file:
            whole.update(name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def _table(folder: Path, split: str, owner: str) -> Path:
    return folder / split / f"{owner}.arrow"


def _keys(folder: Path, owner: str) -> Path:
    return folder / "records" / f"{owner}.npy"
