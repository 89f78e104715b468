"""The systems' page: the paper's table derived anew, what each came to, variant by variant."""

from __future__ import annotations

from collections.abc import Iterator

from fedfuse_ray.config.sources.systems import COLUMNS
from fedfuse_ray.report.grids import Grid, as_part
from fedfuse_ray.report.page import (
    Card,
    Cell,
    Charts,
    Details,
    Facts,
    Heading,
    Panel,
    Part,
    Table,
    Text,
)
from fedfuse_ray.report.provenance import machine
from fedfuse_ray.report.schema import OVERALL
from fedfuse_ray.report.units import ABSENT, human_seconds, percent
from fedfuse_ray.studies.pages import run_links, sections_of, study_page
from fedfuse_ray.studies.related import tables
from fedfuse_ray.studies.related.figures import curves
from fedfuse_ray.studies.related.results import Related, Row
from fedfuse_ray.studies.related.texts import NAMES, OURS, SECTIONS, TITLE

_LEAD = "Every system of the paper's related work as a preset, on the same generated specimens."


def page(found: Related) -> str:
    """Return the page, self-contained; each system links the runs behind it."""
    charts = Charts()
    differences = tables.differences(found)
    defined = Details("When a cell is yes", [_words(tables.definitions())])
    sections = sections_of(
        SECTIONS,
        {
            "columns": [Panel([_columns(found)]), defined],
            "differences": [Panel([_words(differences)])] if differences.rows else [],
            "measured": [Panel([as_part(tables.measures(found))])],
            "variants": [*_variants(found, charts)],
            "systems": [_system(row) for row in found.rows],
        },
    )
    kicker = f"fedfuse_ray compare --systems, on {found.root}"
    return study_page(found, kicker, TITLE, _LEAD, _key_numbers(found), sections, charts)


def _key_numbers(found: Related) -> list[Card]:
    ran = [row for row in found.rows if row.measured is not None]
    same = [r for r in ran if tables.about(r).table1]
    differ = sum(len(tables.differing(row)) for row in same)
    entries = [
        Card("Systems", str(len(ran)), f"{sum(len(r.variants) for r in ran)} variants"),
        Card("Cells as in the paper", f"{len(COLUMNS) * len(same) - differ}", f"{differ} differ"),
    ]
    ours = next((row.measured for row in ran if row.system == OURS), None)
    if ours is not None:
        note = f"epsilon {ours.epsilon:.2f}" if ours.epsilon else "not private"
        entries.append(Card("This work", percent(ours.accuracy[OVERALL]), note))
    entries.append(Card("Wall time", human_seconds(found.wall_seconds), machine(found.environment)))
    return entries


def _columns(found: Related) -> Table:
    rows = [
        (
            Cell(tables.about(row).title, strong=row.system, note=_missing(row)),
            *(_yes_or_no(row)),
        )
        for row in found.rows
    ]
    return Table(("system", *NAMES.values()), rows, len(NAMES) + 1)


def _missing(row: Row) -> str:
    return row.missing if row.measured is None else ""


def _yes_or_no(row: Row) -> Iterator[str | Cell]:
    """Yield a system's cells, the paper's beside those that differ from it."""
    strange = tables.differing(row)
    for column in COLUMNS:
        if row.measured is None:
            yield ABSENT
            continue
        cell = row.measured.cells[column]
        said = tables.word(cell.yes)
        plain, strong = ("", said) if cell.yes else (said, "")
        note = f"paper: {tables.word(not cell.yes)}" if column in strange else ""
        yield Cell(plain, strong, note, tip=cell.evidence)


def _variants(found: Related, charts: Charts) -> Iterator[Part]:
    for row in found.rows:
        weights = tables.weights(row)
        if not row.variants and weights is None:
            continue
        figure = curves(row, found)
        if figure is not None:
            yield charts.add(
                figure, "Overall accuracy bold; none is the system's own row.", wide=True
            )
        parts: list[Part] = [Heading(f"{row.system}: {tables.about(row).title}")]
        if row.variants:
            parts.append(as_part(tables.variants(row, found.domains)))
        if weights is not None:
            parts.append(_words(weights))
        yield Panel(parts)


def _system(row: Row) -> Details:
    told = tables.about(row)
    runs = {"the system": row.measured, **row.variants}
    links = run_links({name: m.run for name, m in runs.items() if m is not None})
    parts: list[Part] = [
        Text(told.citation),
        Facts([("Kept", told.kept), ("Simplified", told.simplified)]),
        *([Text(row.missing)] if row.missing else []),
        _words(tables.evidence(row)),
        Text("Runs: " if links else f"Runs: {ABSENT}", links=links),
    ]
    return Details(f"{row.system}: {told.title}", parts)


def _words(grid: Grid) -> Table:
    """Return a table of words alone, none of its columns set to the right."""
    return as_part(grid, len(grid.head))
