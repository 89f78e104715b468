"""From checked rows to domains, institutions and the specimens of each part."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass

from fedfuse_ray import rng
from fedfuse_ray.data.importers.checks import split_of
from fedfuse_ray.data.importers.table import Row, Table
from fedfuse_ray.data.specimens import DomainInfo, Split

HELD_OUT = 0.15
"""Fraction of an institution's train specimens held out when it has no validation rows."""


@dataclass(frozen=True)
class Specimen:
    """One specimen of a part: its class index in the domain, and modality to index of row.

    `holder` is the institution in its rows; "" where the consortium shares it.
    `unit` is what no split may cut: its patient, or itself where nobody knows.
    """

    id: str
    label: int
    rows: dict[str, int]
    patient: str
    unit: tuple[str, str]
    holder: str = ""


@dataclass(frozen=True)
class Layout:
    """Who has which specimens.

    Attributes:
        domains: In order of first appearance; modalities sorted by name, classes by name or, when
            all are numbers, by value.
        institutions: Domain and owned modalities, sorted by name within the domains' order.
        parts: Specimens by (split, owner), in order of first appearance; the owner of `test` is
            the domain, and in it the consortium's come first, then those that institutions hold.
        held_out: Institutions without validation rows, whose validation part is held out.
    """

    domains: dict[str, DomainInfo]
    institutions: dict[str, tuple[str, tuple[str, ...]]]
    parts: dict[tuple[Split, str], list[Specimen]]
    held_out: tuple[str, ...]

    @property
    def held(self) -> dict[str, int]:
        """How many test specimens each institution holds, where it holds any."""
        tests = (s for (split, _), own in self.parts.items() if split == "test" for s in own)
        counts = Counter(specimen.holder for specimen in tests)
        return {name: counts[name] for name in self.institutions if counts[name]}


def arrange(table: Table, seed: int) -> Layout:
    """Group a checked manifest's rows into specimens.

    Rows of one (domain, specimen_id, institution, split) are one specimen. An institution without
    validation rows has 15% of its train specimens held out, chosen by `seed`; see `hold_out`. The
    table has passed `checks.verify`.
    """
    domains = {
        name: _domain([row for row in table.rows if row.domain == name])
        for name in dict.fromkeys(row.domain for row in table.rows)
    }
    institutions = _institutions(table, domains)
    parts: dict[tuple[Split, str], list[Specimen]] = {}
    for name in institutions:
        parts["train", name], parts["validation", name] = [], []
    for domain in domains:
        parts["test", domain] = []
    for key, specimen in _specimens(table, domains):
        parts[key].append(specimen)
    order = {name: index for index, name in enumerate(["", *institutions])}
    for domain in domains:
        parts["test", domain].sort(key=lambda specimen: order[specimen.holder])
    held_out = tuple(name for name in institutions if not parts["validation", name])
    whole = _shared_units([parts["train", name] for name in institutions])
    for name in held_out:
        kept, taken = hold_out(parts["train", name], seed, name, whole)
        parts["train", name], parts["validation", name] = kept, taken
    return Layout(domains, institutions, parts, held_out)


def hold_out(
    specimens: list[Specimen],
    seed: int,
    institution: str,
    whole: Collection[tuple[str, str]] = (),
) -> tuple[list[Specimen], list[Specimen]]:
    """Return (train, validation): 15%, at least one of four or more, none of fewer.

    Patients are held out whole, where they are known, and those that other institutions train on,
    `whole`, are not. A patient stays in train when the institution would lose its last specimen
    of a label or of a modality, or more than the 15%, so the validation part may come out smaller.
    """
    wanted = max(1, round(HELD_OUT * len(specimens))) if len(specimens) >= 4 else 0
    left = Counter(name for specimen in specimens for name in _kinds(specimen))
    units: dict[tuple[str, str], list[int]] = {}
    for i, specimen in enumerate(specimens):
        units.setdefault(specimen.unit, []).append(i)
    members = list(units.values())
    taken: set[int] = set()
    for chosen in rng.generator(seed, "validation", institution).permutation(len(members)):
        rows = members[chosen]
        lost = Counter(kind for i in rows for kind in _kinds(specimens[i]))
        fits = len(taken) + len(rows) <= wanted and specimens[rows[0]].unit not in whole
        if fits and all(left[kind] > count for kind, count in lost.items()):
            taken.update(rows)
            left.subtract(lost)
    train = [specimen for i, specimen in enumerate(specimens) if i not in taken]
    return train, [specimens[i] for i in sorted(taken)]


def _shared_units(parts: list[list[Specimen]]) -> set[tuple[str, str]]:
    """Return the units that lie in several institutions' parts."""
    owners: defaultdict[tuple[str, str], int] = defaultdict(int)
    for part in parts:
        for unit in {specimen.unit for specimen in part}:
            owners[unit] += 1
    return {unit for unit, count in owners.items() if count > 1}


def _kinds(specimen: Specimen) -> list[tuple[str, str | int]]:
    return [("label", specimen.label), *(("modality", name) for name in specimen.rows)]


def _domain(rows: list[Row]) -> DomainInfo:
    training = [row for row in rows if split_of(row) == "train"]
    modalities = sorted({row.modality for row in training})
    return DomainInfo(tuple(modalities), _classes({row.label for row in training}))


def _classes(labels: set[str]) -> tuple[str, ...]:
    try:
        return tuple(sorted(labels, key=lambda label: (float(label), label)))
    except ValueError:
        return tuple(sorted(labels))


def _institutions(
    table: Table, domains: dict[str, DomainInfo]
) -> dict[str, tuple[str, tuple[str, ...]]]:
    owned: dict[str, set[str]] = {}
    home: dict[str, str] = {}
    for row in table.rows:
        if split_of(row) == "train":
            owned.setdefault(row.institution, set()).add(row.modality)
            home[row.institution] = row.domain
    return {
        name: (domain, tuple(m for m in info.modalities if m in owned[name]))
        for domain, info in domains.items()
        for name in sorted(name for name in owned if home[name] == domain)
    }


def _specimens(
    table: Table, domains: dict[str, DomainInfo]
) -> list[tuple[tuple[Split, str], Specimen]]:
    found: dict[tuple[str, str, str], tuple[tuple[Split, str], Specimen]] = {}
    ranks = {name: {c: i for i, c in enumerate(info.classes)} for name, info in domains.items()}
    splits: dict[str, Split] = {"train": "train", "validation": "validation", "test": "test"}
    for i, row in enumerate(table.rows):
        split = splits[split_of(row)]
        owner = row.domain if split == "test" else row.institution
        unit = ("", row.patient) if row.patient else (row.domain, row.specimen)
        label = ranks[row.domain][row.label]
        fresh = (
            (split, owner),
            Specimen(row.specimen, label, {}, row.patient, unit, row.institution),
        )
        key = (row.domain, row.specimen, row.institution)
        found.setdefault(key, fresh)[1].rows[row.modality] = i
    return list(found.values())
