"""A sweep's page: costs and accuracy, what the settings do, what choosing costs, every trial."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from fedfuse_ray.files import write_text
from fedfuse_ray.report.page import (
    Card,
    Charts,
    Group,
    Page,
    Section,
    Text,
    document,
    section,
    texts_of,
)
from fedfuse_ray.report.units import human_bytes, percent
from fedfuse_ray.studies.sweeping.config import Sweep
from fedfuse_ray.studies.sweeping.report.curves import privacy_utility
from fedfuse_ray.studies.sweeping.report.heat import heat_maps
from fedfuse_ray.studies.sweeping.report.parallel import parallel
from fedfuse_ray.studies.sweeping.report.pareto import against_bytes, against_epsilon
from fedfuse_ray.studies.sweeping.report.settings import SEED
from fedfuse_ray.studies.sweeping.report.table import trials_table
from fedfuse_ray.studies.sweeping.store import DONE, FAILED, MISSING, STOPPED, Row
from fedfuse_ray.studies.sweeping.summary import Selection, best, pareto

_TEXTS = texts_of("fedfuse_ray.studies.sweeping.report")


def write_sweep_report(
    folder: Path, sweep: Sweep, rows: Sequence[Row], selection: Selection, total: str = ""
) -> Path:
    """Write a sweep's `report.html` and return its path; `total` is that for its records."""
    path = folder / "report.html"
    write_text(path, sweep_page(sweep, rows, selection, total))
    return path


def sweep_page(sweep: Sweep, rows: Sequence[Row], selection: Selection, total: str = "") -> str:
    """Return the page, self-contained; each trial links to its own report."""
    charts = Charts()
    front = {row.trial for row in pareto(rows, sweep.objectives)}
    sections = [
        _front(sweep, rows, front, charts),
        *_privacy(sweep, rows, charts),
        _settings(sweep, rows, front, charts),
        section(_TEXTS, "selection", [Text(total)] if total else [], told=selection.text),
        section(_TEXTS, "trials", [trials_table(sweep, rows, front)]),
    ]
    base = Path(sweep.base).stem
    page = Page(
        title=f"Sweep over {base}",
        sections=sections,
        kicker=f"fedfuse_ray sweep over {base}",
        heading="Sweep",
        lead=", ".join(sweep.space),
        cards=_key_numbers(sweep, rows, selection),
        links=sections,
    )
    return document(page, charts)


def _front(sweep: Sweep, rows: Sequence[Row], front: Collection[str], charts: Charts) -> Section:
    *some, last = sweep.objectives
    told = _TEXTS["front"]
    weighed = f"{', '.join(some)} and {last}, and better in one of them" if some else last
    intro = told["intro" if some else "one"]
    drawn = [
        charts.add(against_epsilon(rows, front), told["epsilon"]),
        charts.add(against_bytes(rows, front), told["bytes"]),
    ]
    shown = intro.format(front=len(front), trials=len(rows), weighed=weighed)
    return Section("front", told["title"], shown, drawn)


def _privacy(sweep: Sweep, rows: Sequence[Row], charts: Charts) -> list[Section]:
    """Return the section, none where epsilon was not varied."""
    curves = privacy_utility(sweep, rows)
    if not curves.figures:
        return []
    told = _TEXTS["privacy"]
    over = ", ".join("seeds" if label == SEED else label for label in curves.over)
    intro, caption = ("intro", "caption") if over else ("one", "point")
    drawn = [charts.add(figure, told[caption].format(over=over)) for figure in curves.figures]
    tiles = Group(drawn, kind="tiles")
    return [Section("privacy", told["title"], told[intro].format(over=over), [tiles])]


def _settings(sweep: Sweep, rows: Sequence[Row], front: Collection[str], charts: Charts) -> Section:
    told = _TEXTS["settings"]
    lines, maps = parallel(sweep, rows, front), heat_maps(sweep, rows)
    drawn = charts.add(lines, told["lines"], wide=True)
    if not maps:
        return Section("settings", told["title"], told["one"], [drawn])
    tiles = Group([charts.add(figure, told["map"]) for figure in maps], kind="tiles")
    return section(_TEXTS, "settings", [drawn, tiles])


def _key_numbers(sweep: Sweep, rows: Sequence[Row], selection: Selection) -> list[Card]:
    counts = {
        status: sum(r.status == status for r in rows) for status in (STOPPED, FAILED, MISSING)
    }
    rest = [f"{count} {status}" for status, count in counts.items() if count]
    done = sum(row.status == DONE for row in rows)
    note = ", ".join([f"search {sweep.search.kind}", *rest])
    entries = [Card("Trials", f"{done} of {len(rows)}", note)]
    chosen = best(rows, sweep.objectives)
    if chosen is not None:
        entries += [
            Card("Best accuracy", percent(chosen.accuracy), chosen.trial),
            Card("Its uplink", human_bytes(chosen.uplink_bytes), f"{chosen.rounds} rounds"),
        ]
        if chosen.epsilon is not None:
            entries.append(Card("Its own epsilon", f"{chosen.epsilon:.2f}", "as if run alone"))
    if selection.cost is not None:
        entries.append(
            Card("Epsilon after choosing", f"{selection.cost.charged:.2f}", "the best is released")
        )
    return entries
