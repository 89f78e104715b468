"""What must hold of a manifest's rows before any image is opened.

Each rule raises an `InputError` that names the file, the first line that breaks the rule, the value
and the remedy.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from fedfuse_ray.data.importers.spellings import no_missing_label, one_spelling
from fedfuse_ray.data.importers.table import COLUMNS, PATIENT, SPLITS, Row, Table
from fedfuse_ray.errors import InputError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Shared:
    """A specimen, or a patient, that several institutions hold.

    Attributes:
        column: Where it is named: `specimen_id`, or `PATIENT`.
        name: Its id.
        domain: A specimen's domain; "" of a patient, who may have specimens in several.
        institutions: Who holds it, in order of first appearance.
        place: Where the second one's first row stands.
    """

    column: str
    name: str
    domain: str
    institutions: tuple[str, ...]
    place: str

    def __str__(self) -> str:
        within = f" of {self.domain}" if self.domain else ""
        return f"{self.name}{within} at {', '.join(self.institutions)}"


def verify(table: Table) -> None:
    """Apply every rule to a manifest.

    Raises:
        InputError: A rule is broken.
    """
    if not table.rows:
        raise InputError("data.path", table.path, "the manifest is empty; give it a row an image")
    for rule in RULES:
        rule(table)


def check_name(field: str, value: str) -> None:
    """Refuse what can't name an institution, a domain or a modality.

    Raises:
        InputError: It holds other characters than a name may, or too many.
    """
    if not _NAME.fullmatch(value):
        remedy = "a name is letters, digits, '.', '_' and '-', and at most 100 of them; rename it"
        raise InputError(field, value, remedy)


def split_of(row: Row) -> str:
    """Return the name of a row's split: `train`, `validation` or `test`."""
    return SPLITS[row.split.lower()]


def shared_specimens(table: Table) -> tuple[Shared, ...]:
    """Return the specimens that more than one institution trains on, in order of appearance.

    That breaks no rule: hospitals may share a patient. But whatever each institution's epsilon is,
    such a specimen's own is larger.
    """
    return _shared(table, "train", "specimen_id", _specimen)


def shared_patients(table: Table) -> tuple[Shared, ...]:
    """Return the patients that more than one institution trains on, in order of appearance.

    They are found by their ids, in all domains. In a real consortium no one party sees all ids:
    there it takes a private set intersection.
    """
    return _shared(table, "train", PATIENT, lambda row: ("", row.patient)) if table.patients else ()


def held_tests(table: Table) -> dict[str, str]:
    """Return where the first test row stands of each domain whose test rows all have an owner."""
    public: set[str] = set()
    first: dict[str, str] = {}
    for i, row in enumerate(table.rows):
        if SPLITS.get(row.split.lower()) == "test":
            first.setdefault(row.domain, table.where(i))
            if not row.institution:
                public.add(row.domain)
    return {domain: place for domain, place in first.items() if domain not in public}


def shared_tests(table: Table) -> tuple[Shared, ...]:
    """Return the test specimens that several institutions hold, in order of appearance."""
    return _shared(table, "test", "specimen_id", _specimen)


def _specimen(row: Row) -> tuple[str, str]:
    return row.domain, row.specimen


def _shared(
    table: Table, split: str, column: str, key: Callable[[Row], tuple[str, str]]
) -> tuple[Shared, ...]:
    rows: dict[tuple[str, str], dict[str, int]] = {}
    for i, row in enumerate(table.rows):
        if SPLITS.get(row.split.lower()) == split and row.institution:
            rows.setdefault(key(row), {}).setdefault(row.institution, i)
    return tuple(
        Shared(column, name, domain, tuple(owners), table.where(list(owners.values())[1]))
        for (domain, name), owners in rows.items()
        if len(owners) > 1
    )


def _filled(table: Table) -> None:
    for i, row in enumerate(table.rows):
        # A benchmark's own test set may come without ids.
        if table.patients and not row.patient and row.split.lower() != "test":
            remedy = "is empty; give every train and validation row one, or drop the column"
            raise InputError(f"{table.where(i)}, {PATIENT}", row.patient, remedy)
        for column, value in zip(COLUMNS, row, strict=False):
            if not value and not (column == "institution" and row.split.lower() == "test"):
                remedy = "is empty; only test rows may leave institution empty"
                raise InputError(f"{table.where(i)}, {column}", value, remedy)
        for column in ("institution", "domain", "modality"):
            value = row[COLUMNS.index(column)]
            if value:
                check_name(f"{table.where(i)}, {column}", value)


def _known_split(table: Table) -> None:
    for i, row in enumerate(table.rows):
        if row.split.lower() not in SPLITS:
            remedy = "is no split; write train, validation (or val) or test"
            raise InputError(f"{table.where(i)}, split", row.split, remedy)


def _one_domain(table: Table) -> None:
    first: dict[str, int] = {}
    for i, row in enumerate(table.rows):
        j = first.setdefault(row.institution, i) if row.institution else i
        if table.rows[j].domain != row.domain:
            other = f"in {table.rows[j].domain} at {table.place(j)}"
            remedy = f"is in domain {row.domain} here and {other}; an institution has one domain"
            raise InputError(f"{table.where(i)}, institution", row.institution, remedy)


def _one_split_and_label(table: Table) -> None:
    first: dict[tuple[str, str], int] = {}
    for i, row in enumerate(table.rows):
        j = first.setdefault((row.domain, row.specimen), i)
        there = table.place(j)
        if split_of(table.rows[j]) != split_of(row):
            remedy = (
                f"is in {split_of(row)} here and in {split_of(table.rows[j])} at {there}, a leak; "
                "keep a specimen in one split, and ids unique in a domain"
            )
            raise InputError(f"{table.where(i)}, specimen_id", row.specimen, remedy)
        if table.rows[j].label != row.label:
            remedy = (
                f"specimen {row.specimen} has label {table.rows[j].label} at {there}; a specimen "
                "has one label, and ids are unique in a domain"
            )
            raise InputError(f"{table.where(i)}, label", row.label, remedy)


def _one_patient(table: Table) -> None:
    first: dict[tuple[str, str], int] = {}
    for i, row in enumerate(table.rows):
        j = first.setdefault((row.domain, row.specimen), i)
        if table.rows[j].patient != row.patient:
            other = f"{table.rows[j].patient!r} at {table.place(j)}"
            remedy = f"specimen {row.specimen} is of patient {other}; a specimen is of one patient"
            raise InputError(f"{table.where(i)}, {PATIENT}", row.patient, remedy)


def _whole_patients(table: Table) -> None:
    first: dict[str, int] = {}
    for i, row in enumerate(table.rows):
        j = first.setdefault(row.patient, i) if row.patient else i
        here, there = split_of(row), split_of(table.rows[j])
        if here != there:
            other = f"{there} at {table.place(j)}"
            remedy = (
                f"is in {here} here and in {other}, a leak; keep all specimens of a patient in one "
                "split, and ids of patients unique in the manifest"
            )
            raise InputError(f"{table.where(i)}, {PATIENT}", row.patient, remedy)


def _one_image(table: Table) -> None:
    first: dict[tuple[str, str, str, str], int] = {}
    for i, row in enumerate(table.rows):
        j = first.setdefault((row.domain, row.specimen, row.institution, row.modality), i)
        if j != i:
            remedy = (
                f"specimen {row.specimen} has its {row.modality} image at {table.place(j)} already;"
                " keep one of them, make the other a modality of its own, or give it a specimen_id"
                f" of its own and both one {PATIENT}, which privacy.unit=patient protects as one"
            )
            raise InputError(f"{table.where(i)}, modality", row.modality, remedy)


def _no_empty_institution(table: Table) -> None:
    training = {row.institution for row in table.rows if split_of(row) == "train"}
    for i, row in enumerate(table.rows):
        if row.institution and row.institution not in training:
            remedy = (
                "is an empty institution: it has no train specimens; add some, or remove it "
                "(test rows may leave institution empty)"
            )
            raise InputError(f"{table.where(i)}, institution", row.institution, remedy)


def _domain_is_whole(table: Table) -> None:
    splits = {(row.domain, split_of(row)) for row in table.rows}
    labels = {(row.domain, row.label) for row in table.rows if split_of(row) == "train"}
    for domain in dict.fromkeys(row.domain for row in table.rows):
        for needed in ("train", "test"):
            if (domain, needed) not in splits:
                remedy = f"the domain has no {needed} rows; give some specimens split={needed}"
                raise InputError(f"{table.path}, domain", domain, remedy)
        if sum(name == domain for name, _ in labels) < 2:
            remedy = "the domain's train rows have a single class; a classifier needs two or more"
            raise InputError(f"{table.path}, domain", domain, remedy)


def _known_label(table: Table) -> None:
    trained = {(row.domain, row.label) for row in table.rows if split_of(row) == "train"}
    for i, row in enumerate(table.rows):
        if (row.domain, row.label) not in trained:
            allowed = ", ".join(sorted(label for name, label in trained if name == row.domain))
            remedy = f"is outside {row.domain}'s set of labels, which train rows have: {allowed}"
            raise InputError(f"{table.where(i)}, label", row.label, remedy)


def _owned_modality(table: Table) -> None:
    training = [row for row in table.rows if split_of(row) == "train"]
    owned = {(row.institution, row.modality) for row in training}
    trained = {(row.domain, row.modality) for row in training}
    for i, row in enumerate(table.rows):
        if (row.domain, row.modality) not in trained:
            remedy = f"no institution of {row.domain} owns it: it has no train rows; add or remove"
            raise InputError(f"{table.where(i)}, modality", row.modality, remedy)
        if split_of(row) == "validation" and (row.institution, row.modality) not in owned:
            remedy = f"{row.institution} has no train rows of it; add some, or remove this row"
            raise InputError(f"{table.where(i)}, modality", row.modality, remedy)


def _no_shared_file(table: Table) -> None:
    first: dict[PurePosixPath, int] = {}
    for i, name in enumerate(table.files):
        j = first.setdefault(PurePosixPath(name), i)
        here, there = split_of(table.rows[i]), split_of(table.rows[j])
        if here != there:
            other = f"{there} at {table.place(j)}, a leak"
            remedy = f"the file serves {here} here and {other}; keep it in one split"
            raise InputError(f"{table.where(i)}, path", name, remedy)


RULES: tuple[Callable[[Table], None], ...] = (
    _filled,
    _known_split,
    no_missing_label,
    one_spelling,
    _one_domain,
    _one_split_and_label,
    _one_patient,
    _whole_patients,
    _one_image,
    _no_empty_institution,
    _domain_is_whole,
    _known_label,
    _owned_modality,
    _no_shared_file,
)
"""The rules, in the order in which they are applied; later ones rely on earlier ones."""
