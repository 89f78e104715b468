"""The reproduction's page: each claim of the paper beside its measurement."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from fedfuse_ray.report.grids import as_html
from fedfuse_ray.report.page import Card, Charts, cards, details, document, facts, section
from fedfuse_ray.report.provenance import machine_facts
from fedfuse_ray.report.schema import OVERALL
from fedfuse_ray.report.units import human_seconds, percent, plain
from fedfuse_ray.studies.reproducing import figures, paper, tables
from fedfuse_ray.studies.reproducing.cells import ENCODERS, FUSION
from fedfuse_ray.studies.reproducing.results import Reproduction, Row
from fedfuse_ray.studies.reproducing.tables import TABLES
from fedfuse_ray.studies.reproducing.texts import SECTIONS, SPREAD, TITLE, lead

_FIGURES = {
    "table3": (figures.paradigms, "Bars are measured, diamonds are the paper's figures."),
    "skew": (figures.skew, "Further right, institutions differ more."),
    "privacy": (figures.privacy, "Dotted: the centralized model of the same domain."),
    "transfer": (figures.transfer, "Above zero, pre-training on the other two domains helped."),
    "ablation": (figures.ablation, "Dotted: the federation as it is."),
}


def page(found: Reproduction) -> str:
    """Return the page, self-contained; each table links the runs behind it."""
    charts = Charts()
    body = [_header(found)]
    for name, (title, text) in SECTIONS.items():
        grid = TABLES[name](found)
        if not grid.rows:
            continue
        blocks = []
        if name in _FIGURES:
            draw, caption = _FIGURES[name]
            blocks.append(charts.add(draw(found), f"{caption} {SPREAD}"))
        blocks.append(f'<div class="panel">{as_html(grid)}</div>')
        if rows := found.studies.get(name):
            blocks.append(details("The runs behind this", _runs(rows)))
        body.append(section(name, title, text, *blocks))
    told = machine_facts(found.environment)
    body.append(section("environment", "Where this was measured", found.command, facts(told)))
    return document(TITLE, "".join(body), charts)


def _header(found: Reproduction) -> str:
    entries = []
    ours = found.row("table3", paradigm="fedfuse")
    shares = tables.of_centralized(found, ours)
    if OVERALL in shares:
        entries.append(
            Card(
                "Of centralized, epsilon 1",
                percent(shares[OVERALL].mean),
                f"paper: {percent(paper.OF_CENTRALIZED)}",
            )
        )
    row = found.row("compression", paradigm="fedfuse_nonprivate", codec="compressed")
    if row is not None:
        entries.append(
            Card(
                "Bytes below fp32",
                percent(tables.saving(row)),
                f"paper: {percent(paper.SAVING, 0)}",
            )
        )
    for start in (FUSION, ENCODERS):
        if (gain := tables.transfer_gain(found, start)) is not None:
            note = f"points {tables.range_text(gain[0])}; paper: +{percent(paper.TRANSFER_GAIN, 0)}"
            entries.append(Card(f"Transfer: {start}", f"{100 * gain[0].mean:+.1f}", note))
    entries.append(Card("Wall time", human_seconds(found.wall_seconds), found.command))
    links = "".join(
        f'<a href="#{name}">{escape(title)}</a>'
        for name, (title, _) in SECTIONS.items()
        if TABLES[name](found).rows
    )
    return (
        f'<header><p class="kicker">fedfuse_ray reproduce, {escape(found.scale)}</p>'
        f'<h1>{escape(TITLE)}</h1><p class="lead">{escape(lead(found))}</p>'
        f"<nav>{links}</nav>{cards(entries)}</header>"
    )


def _runs(rows: Sequence[Row]) -> str:
    items = "".join(
        f"<li>{escape(', '.join(f'{k} {plain(v)}' for k, v in row.at.items()))}: "
        + ", ".join(
            f'<a href="{quote(run)}/report.html">seed {seed}</a>'
            for seed, run in zip(row.seeds, row.runs, strict=True)
        )
        + "</li>"
        for row in rows
    )
    return f"<ul>{items}</ul>"
