"""What the pages and documents of the paper's experiments and of the related work do alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from fedfuse_ray.files import write_text
from fedfuse_ray.report.page import (
    Card,
    Charts,
    Facts,
    Link,
    Page,
    Part,
    Section,
    Texts,
    document,
    section,
)
from fedfuse_ray.report.provenance import machine, machine_facts
from fedfuse_ray.report.units import human_seconds


class Found(Protocol):
    """What a study's file says of the study itself."""

    @property
    def command(self) -> str:
        """What makes the same results."""

    @property
    def wall_seconds(self) -> float:
        """Of the last part, where it was continued."""

    @property
    def environment(self) -> dict[str, object]:
        """Where it was measured."""


def sections_of(texts: Texts, parts: Mapping[str, Sequence[Part]]) -> list[Section]:
    """Return the sections that have parts, in the order of their texts."""
    return [section(texts, name, parts[name]) for name in texts if parts.get(name)]


def study_page(
    found: Found,
    kicker: str,
    title: str,
    lead: str,
    cards: Sequence[Card],
    sections: Sequence[Section],
    charts: Charts,
) -> str:
    """Return the page, self-contained; where it was measured stands last."""
    where = [Facts(machine_facts(found.environment))]
    last = Section("environment", "Where this was measured", found.command, where)
    page = Page(
        title=title,
        sections=[*sections, last],
        kicker=kicker,
        heading=title,
        lead=lead,
        cards=cards,
        links=sections,
        links_first=True,
    )
    return document(page, charts)


def run_links(runs: Mapping[str, str]) -> list[Link]:
    """Return links to runs' own reports, from their folders by name."""
    return [(name, f"{quote(folder)}/report.html") for name, folder in runs.items()]


def measured_by(found: Found) -> str:
    """Return by which command, how long and on which machine, in a few words."""
    return (
        f"`{found.command}`, {human_seconds(found.wall_seconds)} on {machine(found.environment)}."
    )


def markdown_sections(texts: Texts, parts: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the sections that have parts as blocks of a document."""
    blocks = []
    for name, told in texts.items():
        if parts.get(name):
            blocks += [f"## {told['title']}", f"{told['intro']}\n", *parts[name]]
    return blocks


def write_both(folder: Path, page: str, name: str, text: str) -> Path:
    """Write `report.html` and the document `name`; return the page's path."""
    write_text(folder / name, text)
    path = folder / "report.html"
    write_text(path, page)
    return path
