"""The systems' page: the paper's table derived anew, what each came to, variant by variant."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from urllib.parse import quote

from fedfuse_ray.config.sources.systems import COLUMNS
from fedfuse_ray.report.grids import as_html
from fedfuse_ray.report.page import Card, Charts, cards, details, document, facts, section, table
from fedfuse_ray.report.provenance import machine, machine_facts
from fedfuse_ray.report.schema import OVERALL
from fedfuse_ray.report.units import ABSENT, human_seconds, percent
from fedfuse_ray.studies.related import tables
from fedfuse_ray.studies.related.figures import curves
from fedfuse_ray.studies.related.results import Related, Row
from fedfuse_ray.studies.related.texts import NAMES, OURS, SECTIONS, TITLE


def page(found: Related) -> str:
    """Return the page, self-contained; each system links the runs behind it."""
    charts = Charts()
    blocks = {
        "columns": [_panel(_columns(found)), _defined()],
        "differences": [_panel(as_html(grid, len(grid.head)))]
        if (grid := tables.differences(found)).rows
        else [],
        "measured": [_panel(as_html(tables.measures(found)))],
        "variants": [*_variants(found, charts)],
        "systems": [_system(row) for row in found.rows],
    }
    body = [_header(found, [name for name in SECTIONS if blocks[name]])]
    for name, (title, intro) in SECTIONS.items():
        if blocks[name]:
            body.append(section(name, title, intro, *blocks[name]))
    told = facts(machine_facts(found.environment))
    body.append(section("environment", "Where this was measured", found.command, told))
    return document(TITLE, "".join(body), charts)


def _header(found: Related, sections: list[str]) -> str:
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
    links = "".join(f'<a href="#{n}">{escape(SECTIONS[n][0])}</a>' for n in sections)
    return (
        f'<header><p class="kicker">fedfuse_ray compare --systems, on {escape(found.root)}</p>'
        f"<h1>{escape(TITLE)}</h1>"
        '<p class="lead">Every system of the paper\'s related work as a preset, on the same '
        "generated specimens.</p>"
        f"<nav>{links}</nav>{cards(entries)}</header>"
    )


def _columns(found: Related) -> str:
    rows: list[tuple[str, ...]] = []
    for row in found.rows:
        told, strange = tables.about(row), tables.differing(row)
        name = f"<b>{escape(row.system)}</b> {escape(told.title)}"
        if row.measured is None:
            rows.append((f"{name}<br><small>{escape(row.missing)}</small>", *(ABSENT,) * 5))
            continue
        cells = []
        for column in COLUMNS:
            cell = row.measured.cells[column]
            beside = f"<br><small>paper: {tables.word(not cell.yes)}</small>"
            said = f"<b>{tables.word(True)}</b>" if cell.yes else tables.word(False)
            cells.append(
                f'<td title="{escape(cell.evidence, quote=True)}">{said}'
                f"{beside if column in strange else ''}</td>"
            )
        rows.append((name, *cells))
    return table(("system", *NAMES.values()), rows, len(NAMES) + 1)


def _defined() -> str:
    grid = tables.definitions()
    return details("When a cell is yes", as_html(grid, len(grid.head)))


def _variants(found: Related, charts: Charts) -> Iterator[str]:
    for row in found.rows:
        weights = tables.weights(row)
        if not row.variants and weights is None:
            continue
        figure = curves(row, found)
        if figure is not None:
            yield charts.add(figure, "Overall accuracy bold; none is the system's own row.")
        title = f"{row.system}: {tables.about(row).title}"
        parts = [f"<h3>{escape(title)}</h3>"]
        if row.variants:
            parts.append(as_html(tables.variants(row, found.domains)))
        if weights is not None:
            parts.append(as_html(weights, len(weights.head)))
        yield _panel("".join(parts))


def _system(row: Row) -> str:
    told = tables.about(row)
    grid = tables.evidence(row)
    texts = facts([("Kept", told.kept), ("Simplified", told.simplified)])
    runs = {"the system": row.measured, **row.variants}
    links = ", ".join(
        f'<a href="{quote(measured.run)}/report.html">{escape(name)}</a>'
        for name, measured in runs.items()
        if measured is not None
    )
    missing = f"<p>{escape(row.missing)}</p>" if row.missing else ""
    return details(
        f"{row.system}: {told.title}",
        f"<p>{escape(told.citation)}</p>{texts}{missing}"
        f"{as_html(grid, len(grid.head))}<p>Runs: {links or ABSENT}</p>",
    )


def _panel(content: str) -> str:
    return f'<div class="panel">{content}</div>'
