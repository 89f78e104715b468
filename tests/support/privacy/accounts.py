"""Made-up runs for a privacy account: institutions, images named by text, charges."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from fedfuse_ray.accounts.book import Book, Group, Run, units_line
from fedfuse_ray.accounts.charges import Charges, fold
from fedfuse_ray.accounts.pending import Pending
from fedfuse_ray.accounts.totals import Guarantee
from fedfuse_ray.accounts.units import Units, canonical
from fedfuse_ray.data.records import KEY, KEY_BYTES
from fedfuse_ray.privacy.accounting.ledger import PrivacyEvent

DELTA = 1e-5
RECORDS = Guarantee("record", DELTA)


def key(image: str) -> bytes:
    """Return the key of an image that is known by a text."""
    return hashlib.sha256(image.encode()).digest()[:KEY_BYTES]


def units(*records: Sequence[str]) -> Units:
    """Return units, each a list of images."""
    return canonical([np.array([key(image) for image in record], KEY) for record in records])


def event(sigma: float = 4.0, institution: str = "a", **more: object) -> PrivacyEvent:
    """Return a release of one round."""
    return PrivacyEvent(1, institution, ("fusion",), "gaussian", sigma, **more)  # type: ignore[arg-type]


def charges(sigma: float = 4.0, count: int = 1, **more: object) -> Charges:
    """Return equal releases as charges."""
    return fold([event(sigma, count=count, **more)])


def coming(
    id: str,
    groups: Mapping[str, tuple[Units, Charges]],
    *,
    protected: bool = True,
    identity: str = "",
    unit: str = "record",
) -> Pending:
    """Return a run that is about to enter: by participant its units, and what each is charged."""
    own = {name: Group(held.id, charged) for name, (held, charged) in groups.items()}
    run = Run(id, "run", f"/runs/{id}", unit, protected, own, identity)
    return Pending(run, tuple(held for held, _ in groups.values()), Guarantee(unit, DELTA))


def book_of(*runs: Pending) -> Book:
    """Return an account in which some runs stand, and none has ended."""
    book = Book()
    for each in runs:
        book = book.after(each.lines(book))
    return book


def with_units(book: Book, held: Units) -> Book:
    """Return a book that knows some units, of which no run speaks."""
    return book if held.id in book.units else book.after([units_line(held)])
