"""The page that sets paradigms side by side, with links to each one's own report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fedfuse_ray.errors import InputError
from fedfuse_ray.files import write_text
from fedfuse_ray.report import figures
from fedfuse_ray.report.figures.comparison import domains_of
from fedfuse_ray.report.page import (
    Card,
    Cell,
    Charts,
    Group,
    Items,
    Page,
    Part,
    Section,
    Table,
    Text,
    document,
    section,
    texts_of,
)
from fedfuse_ray.report.run_page import write_run_report
from fedfuse_ray.report.schema import OVERALL, Summary
from fedfuse_ray.report.store import read_comparison, read_rounds
from fedfuse_ray.report.units import (
    ABSENT,
    epsilon,
    human_bytes,
    human_seconds,
    percent,
    records_total,
)

REFERENCE = "centralized"
"""The paradigm that the others' accuracy is a percentage of."""

_TEXTS = texts_of("fedfuse_ray.report")


def write_comparison_report(
    folder: Path, comparison: Mapping[str, Summary | Mapping[str, Any]]
) -> Path:
    """Write a comparison's `report.html` and return its path.

    Args:
        folder: Where the paradigms' own folders are, by name; those that exist are linked, and
            their rounds drawn.
        comparison: A summary by paradigm, in the order to show.

    Raises:
        pydantic.ValidationError: A summary breaks the contract.
        InputError: A paradigm's rounds table is broken.
    """
    folder = Path(folder)
    summaries = {name: Summary.model_validate(value) for name, value in comparison.items()}
    rounds = {
        name: read_rounds(folder / name)
        for name in summaries
        if (folder / name / "rounds.parquet").is_file()
    }
    path = folder / "report.html"
    write_text(path, comparison_page(summaries, rounds))
    return path


def write_report(folder: Path) -> Path:
    """Write the report of a run's or a comparison's folder, whichever it is.

    A comparison's paradigms get their own reports too.

    Raises:
        InputError: The folder or a file of it is missing or broken.
    """
    folder = Path(folder)
    if not (folder / "comparison.json").is_file():
        return write_run_report(folder)
    comparison = read_comparison(folder)
    for name in comparison:
        if (folder / name).is_dir():
            write_run_report(folder / name)
    if not comparison:
        raise InputError(str(folder / "comparison.json"), "{}", "it names no paradigm")
    return write_comparison_report(folder, comparison)


def relative_to_centralized(comparison: Mapping[str, Summary], paradigm: str) -> float | None:
    """Return a paradigm's overall accuracy as a fraction of the centralized one's."""
    reference = comparison.get(REFERENCE)
    if reference is None or reference.accuracy[OVERALL] == 0.0:
        return None
    return comparison[paradigm].accuracy[OVERALL] / reference.accuracy[OVERALL]


def comparison_page(comparison: Mapping[str, Summary], rounds: Mapping[str, Any]) -> str:
    """Return the page, self-contained; paradigms in `rounds` have a folder and are linked."""
    charts = Charts()
    sections = _sections(comparison, rounds, charts)
    presets = dict.fromkeys(summary.preset for summary in comparison.values())
    seeds = dict.fromkeys(str(summary.seed) for summary in comparison.values())
    page = Page(
        title="Comparison of paradigms",
        sections=sections,
        kicker=f"fedfuse_ray comparison on {', '.join(presets)}, seed {', '.join(seeds)}",
        heading="Paradigms compared",
        lead="Overall accuracy on the consortium's test specimens.",
        cards=[
            Card(name, percent(summary.accuracy[OVERALL]), epsilon_note(summary))
            for name, summary in comparison.items()
        ],
    )
    return document(page, charts)


def _sections(
    comparison: Mapping[str, Summary], rounds: Mapping[str, Any], charts: Charts
) -> list[Section]:
    bars, lines = figures.accuracy_by_paradigm, figures.convergence_by_paradigm
    drawn = {"accuracy": bars(comparison), "rounds": lines(rounds, comparison)}
    shown = {name: charts.add(figure, _TEXTS[name]["caption"]) for name, figure in drawn.items()}
    parts = [Group([_table(comparison, rounds)]), _meanings(comparison)]
    if told := records_total(summary.privacy for summary in comparison.values()):
        parts.insert(1, Text(told))
    return [
        section(_TEXTS, "paradigms", parts),
        *(section(_TEXTS, name, [chart]) for name, chart in shown.items()),
    ]


def epsilon_note(summary: Summary) -> str:
    """Return 'epsilon 1.00' or 'not private'."""
    told = epsilon(summary.privacy)
    return f"epsilon {told}" if summary.privacy.private else told


def _table(comparison: Mapping[str, Summary], rounds: Mapping[str, Any]) -> Table:
    domains = domains_of(comparison)
    head = (
        "paradigm",
        "overall",
        *domains,
        "% of centralized",
        "epsilon",
        "uplink a round",
        "time",
    )
    best = {
        name: max(s.accuracy.get(name, -1.0) for s in comparison.values())
        for name in (OVERALL, *domains)
    }
    rows: list[tuple[str | Cell, ...]] = []
    for paradigm, summary in comparison.items():
        href = f"{quote(paradigm)}/report.html" if paradigm in rounds else ""
        found = {key: (summary.accuracy.get(key), top) for key, top in best.items()}
        scores = [Cell(percent(score), best=score == top) for score, top in found.values()]
        rows.append(
            (
                Cell(paradigm, href=href),
                *scores,
                percent(relative_to_centralized(comparison, paradigm)),
                epsilon(summary.privacy),
                human_bytes(summary.communication.uplink_bytes_per_round or None),
                human_seconds(summary.time.wall_seconds),
            )
        )
    return Table(head, rows)


def _meanings(comparison: Mapping[str, Summary]) -> Part:
    meaning = _TEXTS["paradigms"]
    known = [Text(f": {meaning[name]}", strong=name) for name in comparison if name in meaning]
    return Items(known, quiet=True) if known else Text(ABSENT)
