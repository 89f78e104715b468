"""The reproduction's page: each claim of the paper beside its measurement."""

from __future__ import annotations

from collections.abc import Sequence

from fedfuse_ray.report.grids import as_part
from fedfuse_ray.report.page import Card, Charts, Details, Items, Panel, Part, Text
from fedfuse_ray.report.schema import OVERALL
from fedfuse_ray.report.units import human_seconds, percent, plain
from fedfuse_ray.studies.pages import run_links, sections_of, study_page
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
    sections = sections_of(SECTIONS, {name: _parts(name, found, charts) for name in SECTIONS})
    kicker = f"fedfuse_ray reproduce, {found.scale}"
    return study_page(found, kicker, TITLE, lead(found), _key_numbers(found), sections, charts)


def _parts(name: str, found: Reproduction, charts: Charts) -> list[Part]:
    """Return a section's chart, table and runs; nothing where nothing was measured."""
    grid = TABLES[name](found)
    if not grid.rows:
        return []
    parts: list[Part] = []
    if name in _FIGURES:
        draw, caption = _FIGURES[name]
        parts.append(charts.add(draw(found), f"{caption} {SPREAD}", wide=True))
    parts.append(Panel([as_part(grid)]))
    if rows := found.studies.get(name):
        parts.append(Details("The runs behind this", [_runs(rows)]))
    return parts


def _key_numbers(found: Reproduction) -> list[Card]:
    entries = []
    shares = tables.of_centralized(found, found.row("table3", paradigm="fedfuse"))
    if OVERALL in shares:
        mean, theirs = percent(shares[OVERALL].mean), percent(paper.OF_CENTRALIZED)
        entries.append(Card("Of centralized, epsilon 1", mean, f"paper: {theirs}"))
    row = found.row("compression", paradigm="fedfuse_nonprivate", codec="compressed")
    if row is not None:
        saved, theirs = percent(tables.saving(row)), percent(paper.SAVING, 0)
        entries.append(Card("Bytes below fp32", saved, f"paper: {theirs}"))
    for start in (FUSION, ENCODERS):
        if (gain := tables.transfer_gain(found, start)) is not None:
            note = f"points {tables.range_text(gain[0])}; paper: +{percent(paper.TRANSFER_GAIN, 0)}"
            entries.append(Card(f"Transfer: {start}", f"{100 * gain[0].mean:+.1f}", note))
    return [*entries, Card("Wall time", human_seconds(found.wall_seconds), found.command)]


def _runs(rows: Sequence[Row]) -> Items:
    return Items(
        [
            Text(
                f"{', '.join(f'{k} {plain(v)}' for k, v in row.at.items())}: ",
                links=run_links(
                    {f"seed {s}": run for s, run in zip(row.seeds, row.runs, strict=True)}
                ),
            )
            for row in rows
        ]
    )
