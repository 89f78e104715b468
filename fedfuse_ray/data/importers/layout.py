"""From checked rows to domains, institutions and the specimens of each part."""

from __future__ import annotations

from collections import Counter
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
    """

    id: str
    label: int
    rows: dict[str, int]
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
    for name in held_out:
        kept, taken = hold_out(parts["train", name], seed, name)
        parts["train", name], parts["validation", name] = kept, taken
    return Layout(domains, institutions, parts, held_out)


def hold_out(
    specimens: list[Specimen], seed: int, institution: str
) -> tuple[list[Specimen], list[Specimen]]:
    """Return (train, validation): 15%, at least one of four or more, none of fewer.

    A specimen stays in train when it is the institution's last one of its label or of one of its
    modalities, so the validation part may come out smaller.
    """
    wanted = max(1, round(HELD_OUT * len(specimens))) if len(specimens) >= 4 else 0
    left = Counter(name for specimen in specimens for name in _kinds(specimen))
    taken: set[int] = set()
    for i in rng.generator(seed, "validation", institution).permutation(len(specimens)):
        kinds = _kinds(specimens[i])
        if len(taken) < wanted and all(left[kind] > 1 for kind in kinds):
            taken.add(int(i))
            left.subtract(kinds)
    train = [specimen for i, specimen in enumerate(specimens) if i not in taken]
    return train, [specimens[i] for i in sorted(taken)]


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
        rank = ranks[row.domain][row.label]
        fresh = (split, owner), Specimen(row.specimen, rank, {}, row.institution)
        key = (row.domain, row.specimen, row.institution)
        found.setdefault(key, fresh)[1].rows[row.modality] = i
    return list(found.values())
