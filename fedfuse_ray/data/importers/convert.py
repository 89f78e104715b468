"""From other collections of images to a manifest with embedded images."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from fedfuse_ray import rng
from fedfuse_ray.data.importers import folders, medmnist
from fedfuse_ray.data.importers.checks import check_name
from fedfuse_ray.data.importers.dealing import deal, draw_shares, draw_splits, fill_empty
from fedfuse_ray.data.importers.folders import FolderSpecimen, Tell
from fedfuse_ray.data.importers.table import Row
from fedfuse_ray.data.importers.writing import Entry, write_manifest
from fedfuse_ray.errors import InputError

MANIFEST = "images.parquet"
"""Name of the manifest in the folder that an import writes to."""


def import_to_manifest(
    source: Path,
    out: Path,
    *,
    institutions: int,
    domain: str | None = None,
    modality: str | None = None,
    label_alpha: float | None = None,
    seed: int = 0,
    tell: Tell = warnings.warn,
) -> Path:
    """Make a manifest from a MedMNIST `.npz` or from a folder `<domain>/<modality>/<label>/`.

    An archive does not tell whose an image is, so its manifest has no patients.

    Args:
        source: The `.npz` or the folder.
        out: Folder for the manifest, `images.parquet`; created when missing.
        institutions: Institutions (of each domain) that the specimens are dealt to.
        domain: Of an `.npz`; a folder names its own.
        modality: Of an `.npz`; a folder names its own.
        label_alpha: Concentration of the Dirichlet over institutions, per class; null is IID.
        seed: Of the split.
        tell: Is told what was left out.

    Returns:
        The manifest's path.

    Raises:
        InputError: See `import_medmnist` and `import_folder`.
    """
    source, out = Path(source), Path(out)
    for field, name in (("domain", domain), ("modality", modality)):
        if source.is_dir() and name:
            raise InputError(field, name, "a folder names it itself; leave the option out")
        if not source.is_dir() and not name:
            raise InputError(field, name, "an .npz does not name it; give the option")
        if name:
            check_name(field, name)
    if source.is_dir():
        return import_folder(
            source, out, institutions=institutions, label_alpha=label_alpha, seed=seed, tell=tell
        )
    return import_medmnist(
        source,
        out,
        domain=str(domain),
        modality=str(modality),
        institutions=institutions,
        label_alpha=label_alpha,
        seed=seed,
    )


def import_medmnist(
    path: Path,
    out_folder: Path,
    *,
    domain: str,
    modality: str,
    institutions: int,
    label_alpha: float | None,
    seed: int,
) -> Path:
    """Write a MedMNIST `.npz` as a manifest, its train and val split over institutions.

    Institutions are named `<domain>-01` and on; the test set is the consortium's. Images are
    streamed from the archive, never held as a whole. It holds {train,val,test}_images, uint8
    [N, H, W] or [N, H, W, 3], and _labels [N, 1]. For the arguments see `import_to_manifest`.

    Raises:
        InputError: The file is no MedMNIST archive of single-label two-dimensional images, or has
            fewer train specimens than institutions.

    Source: Yang et al., MedMNIST v2, 2023, arXiv:2110.14795 (the format).
    """
    path = Path(path)
    labels = medmnist.read_labels(path)
    classes = np.unique(np.concatenate(list(labels.values())))
    generator = rng.generator(seed, "deal", domain)
    shares = draw_shares(len(classes), institutions, label_alpha, generator)
    codes = {split: np.searchsorted(classes, labels[split]) for split in medmnist.SPLITS}
    owners = {split: deal(codes[split], shares, generator) for split in ("train", "val")}
    owners["train"] = fill_empty(owners["train"], institutions, str(path))

    def entries() -> Iterator[Entry]:
        for split in medmnist.SPLITS:
            for i, data in enumerate(medmnist.stream_images(path, split, len(labels[split]))):
                name = f"{modality}-{split}-{i:06d}"
                owner = _site(domain, int(owners[split][i])) if split in owners else ""
                row = Row(name, owner, domain, modality, str(labels[split][i]), split)
                yield Entry(row, data, f"{name}.png")

    return write_manifest(Path(out_folder) / MANIFEST, entries)


def import_folder(
    folder: Path,
    out_folder: Path,
    *,
    institutions: int,
    label_alpha: float | None,
    seed: int,
    tell: Tell,
) -> Path:
    """Write a tree `<domain>/<modality>/<label>[/<patient>]/<image>` as a manifest, split 70/15/15.

    Files of one domain and label that have the same name without suffix, in several modalities,
    are one specimen. Test specimens are the consortium's; the others are dealt to institutions
    named `<domain>-01` and on, which own every modality that they got train images of. All of a
    patient's specimens in a domain go to one split of one institution. For the arguments see
    `import_to_manifest`.

    Raises:
        InputError: The folder holds no such tree, or a domain has fewer train specimens than
            institutions.
    """
    found = folders.find(Path(folder), tell)

    def entries() -> Iterator[Entry]:
        for domain, specimens in found.items():
            generator = rng.generator(seed, "deal", domain)
            for specimen, site, split in _assign(specimens, institutions, label_alpha, generator):
                owner = "" if split == "test" else _site(domain, site)
                for modality, file in specimen.files.items():
                    named = (specimen.id, owner, domain, modality, specimen.label, split)
                    row = Row(*named, specimen.patient)
                    yield Entry(row, file.read_bytes(), file.name)

    known = any(specimen.patient for specimens in found.values() for specimen in specimens)
    return write_manifest(Path(out_folder) / MANIFEST, entries, patients=known)


def _assign(
    specimens: list[FolderSpecimen],
    institutions: int,
    label_alpha: float | None,
    generator: np.random.Generator,
) -> Iterable[tuple[FolderSpecimen, int, str]]:
    """Yield each specimen with its institution's index and its split.

    A patient's specimens go where a specimen like the first of them would go.
    """
    units: dict[str, list[FolderSpecimen]] = {}
    for specimen in specimens:
        units.setdefault(specimen.patient or specimen.id, []).append(specimen)
    firsts = [own[0] for own in units.values()]
    classes = sorted({specimen.label for specimen in specimens})
    codes = np.array([classes.index(specimen.label) for specimen in firsts])
    # Specimens with the same modalities are split together, so that test has its part of each.
    strata = [f"{s.label}/{' '.join(sorted(s.files))}" for s in firsts]
    splits = draw_splits(strata, generator)
    shares = draw_shares(len(classes), institutions, label_alpha, generator)
    owner = np.zeros(len(firsts), np.int64)
    for name in ("train", "validation", "test"):
        rows = np.flatnonzero(splits == name)
        owner[rows] = deal(codes[rows], shares, generator)
    train = np.flatnonzero(splits == "train")
    owner[train] = fill_empty(owner[train], institutions, specimens[0].label)
    kinds = [
        {modality for specimen in own for modality in specimen.files} for own in units.values()
    ]
    owned = {(int(owner[i]), modality) for i in train for modality in kinds[i]}
    everywhere = {modality for _, modality in owned}
    placed = zip(units.values(), kinds, owner.tolist(), splits.tolist(), strict=True)
    for own, found, site, split in placed:
        modalities = everywhere if split == "test" else {m for s, m in owned if s == site}
        # What its institution could not learn from can't be scored there, so it trains instead.
        for specimen in own:
            yield specimen, site, split if found <= modalities else "train"


def _site(domain: str, index: int) -> str:
    return f"{domain}-{index + 1:02d}"
