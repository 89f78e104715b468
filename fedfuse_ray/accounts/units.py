"""Whom a guarantee speaks of, as sets of images: a record's, or all of an institution's.

A unit is known by the keys of its images (`data.records`). Two units of different runs are the same
as far as they share an image, so a specimen that comes back with one image less, under another id
or at an institution of another name is still found.

**Another unit than the record is keyed here**, in `GROUPINGS`. What stands in no grouping is kept
as its whole institution: the total of a larger set of images can only be larger.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fedfuse_ray.data.dataset import Dataset
from fedfuse_ray.data.records import KEY, Keys

RECORD = "record"
SIZE = np.dtype("<u4")
Sizes = npt.NDArray[np.uint32]
_ID_BYTES = 16


@dataclass(frozen=True)
class Units:
    """Units of one institution, in an order that depends on their images alone.

    Attributes:
        keys: Of all units' images, one unit after the other; sorted within each, no key twice.
        sizes: How many images each unit has; at least one.
    """

    keys: Keys
    sizes: Sizes

    @cached_property
    def id(self) -> str:
        """What these units are known by, hex: equal sets of units have equal ids."""
        digest = hashlib.sha256(len(self.sizes).to_bytes(8, "little"))
        digest.update(self.sizes.tobytes())
        digest.update(self.keys.tobytes())
        return digest.digest()[:_ID_BYTES].hex()

    @cached_property
    def distinct(self) -> Keys:
        """All keys once, sorted."""
        found: Keys = np.unique(self.keys)
        return found

    def to_json(self) -> dict[str, str]:
        """Return the units as an entry of the account holds them."""
        return {"keys": _text(self.keys.tobytes()), "sizes": _text(self.sizes.tobytes())}

    @classmethod
    def from_json(cls, tree: Mapping[str, str]) -> Units:
        """Return the units of an entry.

        Raises:
            ValueError: It holds none.
        """
        sizes = np.frombuffer(_bytes(tree["sizes"]), SIZE)
        keys = np.frombuffer(_bytes(tree["keys"]), KEY)
        if not len(sizes) or not sizes.all() or int(sizes.sum()) != len(keys):
            raise ValueError("keys and sizes do not fit")
        return cls(keys, sizes)


def units_of(dataset: Dataset, members: Sequence[str], unit: str) -> Units:
    """Return the units that institutions hold together, to train and to validate on.

    Args:
        dataset: The specimens.
        members: The institutions.
        unit: A privacy unit, as `record`.
    """
    group = GROUPINGS.get(unit, _whole)
    return canonical([unit for name in members for unit in group(dataset, name)])


def canonical(units: Sequence[Keys]) -> Units:
    """Return units by the keys of their images, whatever order they came in; equal ones once.

    >>> a, b = np.array([b"x"], KEY), np.array([b"z", b"y", b"z"], KEY)
    >>> canonical([a, b]).id == canonical([b, a, a]).id
    True
    >>> canonical([a, b]).sizes.tolist()
    [1, 2]
    """
    found = {own.tobytes(): own for own in map(np.unique, units)}
    ordered = [found[text] for text in sorted(found)]
    return Units(np.concatenate(ordered), np.array([len(own) for own in ordered], SIZE))


def shared(wanted: Units, known: Sequence[Units]) -> npt.NDArray[np.bool_]:
    """Return which units share an image with any unit of each of several other sets.

    Returns:
        [number of units, number of sets].
    """
    found = np.zeros((len(wanted.sizes), len(known)), bool)
    if not known:
        return found
    keys = np.concatenate([units.distinct for units in known])
    owners = np.repeat(np.arange(len(known)), [len(units.distinct) for units in known])
    order = np.argsort(keys, kind="stable")
    keys, owners = keys[order], owners[order]
    first = np.searchsorted(keys, wanted.keys, "left")
    counts = np.searchsorted(keys, wanted.keys, "right") - first
    # Each image's equals lie side by side: from `first`, `counts` of them.
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    rows = np.repeat(np.arange(len(wanted.sizes)), wanted.sizes)
    found[np.repeat(rows, counts), owners[np.repeat(first, counts) + within]] = True
    return found


def _records(dataset: Dataset, institution: str) -> list[Keys]:
    keys = dataset.records(institution)
    return [row[row != b""] for row in keys]


def _whole(dataset: Dataset, institution: str) -> list[Keys]:
    keys = dataset.records(institution)
    return [keys[keys != b""]]


GROUPINGS: Mapping[str, Callable[[Dataset, str], list[Keys]]] = {RECORD: _records}
"""From a privacy unit to how an institution's images fall into units."""


def _text(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 1)).decode()


def _bytes(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text, validate=True))
