"""What a dataset is made of, before and after it lies on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float16]
Split = Literal["train", "validation", "test"]
Shape = tuple[int, ...]
"""[C, H, W] of an image, [C, L] of a one-dimensional signal."""


@dataclass(frozen=True)
class Specimens:
    """A batch of specimens of one domain.

    Attributes:
        domain: The domain.
        modalities: The modalities that these specimens may have, in the domain's order.
        ids: Specimen ids, [N].
        labels: Class indices, int64 [N].
        images: For each modality float16 [N, *shape], values in [0, 1]; zero where absent.
        present: Which images there are, bool [N, M] in the order of `modalities`; no row is empty.
        patients: Whose each specimen is, [N]: ids of any groups, the same in all domains; empty
            where nobody knows.
    """

    domain: str
    modalities: tuple[str, ...]
    ids: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    images: dict[str, Image]
    present: npt.NDArray[np.bool_]
    patients: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class DomainInfo:
    """A domain's modalities and class names, in the order that every index refers to."""

    modalities: tuple[str, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class InstitutionInfo:
    """What is public about an institution's data: what it owns, and how many specimens it has.

    `patients` are those of the training specimens; 0 where nobody knows.
    """

    domain: str
    modalities: tuple[str, ...]
    train: int
    validation: int
    patients: int = 0


@dataclass(frozen=True)
class Header:
    """What is known of a dataset before its specimens are read or generated.

    Attributes:
        domains: The domains by name.
        institutions: Domain and owned modalities of each institution, in the federation's order.
        shapes: The shape of each modality.
        held: How many test specimens each institution holds; the others are the consortium's.
    """

    domains: dict[str, DomainInfo]
    institutions: dict[str, tuple[str, tuple[str, ...]]]
    shapes: dict[str, Shape]
    held: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """A batch of a table: an institution's train or validation split, or a domain's test set.

    Several parts of one split and owner (for `test` the domain) are written in order. In a test set
    the consortium's specimens come first, then those that institutions hold, in their order. `keys`
    are those of the images' source bytes (`records`), [N, M]; None where specimens are generated.
    """

    split: Split
    owner: str
    specimens: Specimens
    keys: npt.NDArray[np.bytes_] | None = None


Parts = Iterator[Part]


def select(specimens: Specimens, rows: npt.NDArray[np.intp] | slice) -> Specimens:
    """Return some of the specimens, by index or slice."""
    ids = np.asarray(specimens.ids, dtype=object)[rows]
    patients = specimens.patients and np.asarray(specimens.patients, dtype=object)[rows]
    return Specimens(
        domain=specimens.domain,
        modalities=specimens.modalities,
        ids=tuple(ids),
        labels=specimens.labels[rows],
        images={name: images[rows] for name, images in specimens.images.items()},
        present=specimens.present[rows],
        patients=tuple(patients),
    )


def concatenate(batches: Sequence[Specimens], modalities: Iterable[str]) -> Specimens:
    """Join batches of one domain, with absent modalities filled in as not present.

    Each of the result's modalities must be owned by some batch.
    """
    wanted = tuple(modalities)
    return Specimens(
        domain=batches[0].domain,
        modalities=wanted,
        ids=tuple(name for batch in batches for name in batch.ids),
        labels=np.concatenate([batch.labels for batch in batches]),
        images={m: np.concatenate([_images(b, m, batches) for b in batches]) for m in wanted},
        present=np.stack(
            [np.concatenate([_present(batch, m) for batch in batches]) for m in wanted], axis=1
        ),
        patients=tuple(name for batch in batches for name in batch.patients),
    )


def _images(batch: Specimens, modality: str, batches: Sequence[Specimens]) -> Image:
    if modality in batch.images:
        return batch.images[modality]
    shape = next(b.images[modality].shape[1:] for b in batches if modality in b.images)
    return np.zeros((len(batch), *shape), np.float16)


def _present(batch: Specimens, modality: str) -> npt.NDArray[np.bool_]:
    if modality not in batch.modalities:
        return np.zeros(len(batch), bool)
    column: npt.NDArray[np.bool_] = batch.present[:, batch.modalities.index(modality)]
    return column
