"""What was measured of the systems, as plain tables for the page, the document, the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from fedfuse_ray.config import load_system
from fedfuse_ray.config.sources.systems import COLUMNS, About, Column
from fedfuse_ray.report.grids import Grid
from fedfuse_ray.report.schema import OVERALL
from fedfuse_ray.report.units import ABSENT, human_bytes, human_seconds
from fedfuse_ray.studies.related.columns import DEFINITIONS
from fedfuse_ray.studies.related.results import Measured, Related, Row
from fedfuse_ray.studies.related.texts import NAMES

Measure = Callable[[Measured], str]


@dataclass(frozen=True)
class Layout:
    """Variants named KIND-LEVEL, as a small table; levels that are numbers are a curve's steps."""

    levels: Mapping[str, tuple[str, ...]]
    numeric: bool


def word(yes: bool) -> str:
    """Return a cell's word."""
    return "yes" if yes else "no"


def about(row: Row) -> About:
    """Return what a system's file says of it."""
    return load_system(row.system).about


def differing(row: Row) -> tuple[Column, ...]:
    """Return the columns in which a system's cells are not the paper's."""
    theirs = about(row).table1
    if row.measured is None or not theirs:
        return ()
    return tuple(c for c in COLUMNS if theirs[c] != row.measured.cells[c].yes)


def columns(found: Related) -> Grid:
    """The five columns of every system."""
    rows = []
    for row in found.rows:
        told = about(row)
        name = f"{row.system}: {told.title}"
        if row.measured is None:
            rows.append((name, *((ABSENT,) * len(COLUMNS))))
            continue
        strange = differing(row)
        cells = [
            word(row.measured.cells[c].yes)
            + (f" (paper: {word(told.table1[c])})" if c in strange else "")
            for c in COLUMNS
        ]
        rows.append((name, *cells))
    return Grid(("system", *NAMES.values()), tuple(rows))


def differences(found: Related) -> Grid:
    """Every cell that is not the paper's, with the reason."""
    rows = [
        (row.system, NAMES[c], word(told.table1[c]), word(not told.table1[c]), told.differences[c])
        for row in found.rows
        for c in differing(row)
        if c in (told := about(row)).differences
    ]
    return Grid(("system", "column", "paper", "here", "why"), tuple(rows))


def measures(found: Related) -> Grid:
    """Accuracy by domain, epsilon, bytes, rounds and seconds of every system."""
    shown = _measures(found.domains)
    rows = [
        (row.system, *(ABSENT if row.measured is None else f(row.measured) for f in shown.values()))
        for row in found.rows
    ]
    return Grid(("system", *shown), tuple(rows))


def layout(row: Row) -> Layout | None:
    """Return how variants lie in rows and columns; None where they are a plain list."""
    pairs = [name.partition("-") for name in row.variants]
    kinds = dict.fromkeys(kind for kind, _, _ in pairs)
    levels = {k: tuple(level for kind, _, level in pairs if kind == k) for k in kinds}
    if len(levels) < 2 or any(len(own) < 2 or not all(own) for own in levels.values()):
        return None
    every = [level for own in levels.values() for level in own]
    return Layout(levels, all(level.replace(".", "", 1).isdigit() for level in every))


def variants(row: Row, domains: list[str]) -> Grid:
    """A system's variants: overall accuracy by kind and level, or all measures of each."""
    placed = layout(row)
    if placed is None:
        scored = [d for d in domains if any(d in m.accuracy for _, m in _with_row(row))]
        shown = _measures(scored)
        rows = [(name, *(f(m) for f in shown.values())) for name, m in _with_row(row)]
        return Grid(("variant", *shown), tuple(rows))
    cells = {name: _accuracy(OVERALL)(m) for name, m in row.variants.items()}
    if placed.numeric:
        steps = [(k, x, cells[f"{k}-{x}"]) for k, own in placed.levels.items() for x in own]
        first = [("none", ABSENT, _accuracy(OVERALL)(row.measured))] if row.measured else []
        return Grid(("kind", "level", OVERALL), (*first, *steps))
    head = tuple(dict.fromkeys(level for own in placed.levels.values() for level in own))
    lines = ((kind, *(cells.get(f"{kind}-{x}", ABSENT) for x in head)) for kind in placed.levels)
    return Grid((f"{OVERALL} accuracy", *head), tuple(lines))


def weights(row: Row) -> Grid | None:
    """The fusion's mean weight of each modality, of a system and its variants; None without."""
    rows = [
        (name, domain, ", ".join(f"{m} {value:.2f}" for m, value in by_modality.items()))
        for name, measured in _with_row(row)
        for domain, by_modality in measured.weights.items()
    ]
    return Grid(("variant", "domain", "mean weight in the fusion"), tuple(rows)) if rows else None


def evidence(row: Row) -> Grid:
    """The evidence behind a system's five cells."""
    cells = row.measured.cells if row.measured else {}
    rows = ((NAMES[c], word(cells[c].yes), cells[c].evidence) for c in COLUMNS if c in cells)
    return Grid(("column", "here", "evidence"), tuple(rows))


def definitions() -> Grid:
    """When a cell is yes."""
    return Grid(("column", "yes, where"), tuple((NAMES[c], DEFINITIONS[c]) for c in COLUMNS))


def _with_row(row: Row) -> Iterator[tuple[str, Measured]]:
    if row.measured is not None:
        yield "as in the table", row.measured
    yield from row.variants.items()


def _measures(domains: list[str]) -> Mapping[str, Measure]:
    return {
        **{name: _accuracy(name) for name in (OVERALL, *domains)},
        "epsilon": lambda m: ABSENT if m.epsilon is None else f"{m.epsilon:.2f}",
        "uplink in all": lambda m: human_bytes(m.uplink_bytes) if m.uplink_bytes else ABSENT,
        "rounds": lambda m: str(m.rounds),
        "rounds to 95%": lambda m: ABSENT if m.rounds_to_95 is None else str(m.rounds_to_95),
        "time": lambda m: human_seconds(m.seconds),
    }


def _accuracy(name: str) -> Measure:
    return lambda m: f"{m.accuracy[name]:.3f}" if name in m.accuracy else ABSENT
