"""Labels as people write them: one class in two spellings, and values that stand for none.

Two spellings of a class train a classifier to tell them apart, and nothing looks wrong. So both are
refused by name, and never merged: which of them is meant is not ours to guess.
"""

from __future__ import annotations

import unicodedata
from decimal import Decimal, InvalidOperation

from fedfuse_ray.data.importers.table import Table
from fedfuse_ray.errors import InputError

MISSING = frozenset(
    (
        *("#N/A", "#N/A N/A", "#NA", "N/A", "NA", "n/a"),
        *("NULL", "None", "null"),
        *("NaN", "NaT", "nan", "-NaN", "-nan", "1.#IND", "1.#QNAN", "-1.#IND", "-1.#QNAN"),
    )
)
"""What tables write for a missing value, some between < and >: pandas' own list, and NaT."""


def folded(label: str) -> str:
    """Return what all spellings of a label have in common.

    Letter case, Unicode's normal forms, white space, and the zeros of a number do not matter.

    >>> folded("Grade  II") == folded("grade ii"), folded("01") == folded("1.0")
    (True, True)
    """
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold())
    plain = " ".join(plain.split())
    try:
        number = Decimal(plain)
    except InvalidOperation:
        return plain
    if not number.is_finite() or abs(number.adjusted()) > len(plain) + 20:
        return plain
    return f"number {number.normalize() + 0}"


def no_missing_label(table: Table) -> None:
    """Refuse labels that are no label.

    Raises:
        InputError: One is written as a missing value.
    """
    for i, row in enumerate(table.rows):
        if row.label.strip("<> ") in MISSING:
            remedy = (
                "is how tables write a missing value; leave the row out, or give the class a name"
            )
            raise InputError(f"{table.where(i)}, label", row.label, remedy)


def one_spelling(table: Table) -> None:
    """Refuse a class of a domain that is written in two ways.

    Raises:
        InputError: One is; names both.
    """
    first: dict[tuple[str, str], int] = {}
    keys: dict[str, str] = {}
    for i, row in enumerate(table.rows):
        key = keys.get(row.label)
        if key is None:
            key = keys[row.label] = folded(row.label)
        j = first.setdefault((row.domain, key), i)
        if table.rows[j].label != row.label:
            remedy = (
                f"is {table.rows[j].label!r} at {table.place(j)} in another spelling, which would "
                "be two classes; write each class in one way"
            )
            raise InputError(f"{table.where(i)}, label", row.label, remedy)
