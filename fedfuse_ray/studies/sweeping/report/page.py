"""A sweep's page: costs and accuracy, what the settings do, what choosing costs, every trial."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from fedfuse_ray.files import write_text
from fedfuse_ray.report.page import Card, Charts, Page, Section, Tiles, document
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


def write_sweep_report(
    folder: Path, sweep: Sweep, rows: Sequence[Row], selection: Selection
) -> Path:
    """Write a sweep's `report.html` and return its path."""
    path = folder / "report.html"
    write_text(path, sweep_page(sweep, rows, selection))
    return path


def sweep_page(sweep: Sweep, rows: Sequence[Row], selection: Selection) -> str:
    """Return the page, self-contained; each trial links to its own report."""
    charts = Charts()
    front = {row.trial for row in pareto(rows, sweep.objectives)}
    chosen = (
        "Bold is on the Pareto front. The best of many scores is a little lucky: train it again "
        "with other seeds before relying on its number. A column's name sorts by it."
    )
    sections = [
        _front(sweep, rows, front, charts),
        *_privacy(sweep, rows, charts),
        _settings(sweep, rows, front, charts),
        Section("selection", "What choosing costs", selection.text),
        Section("trials", "The trials", chosen, [trials_table(sweep, rows, front)]),
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
    weighed = f"{', '.join(some)} and {last}, and better in one of them" if some else last
    intro = (
        f"{len(front)} of {len(rows)} trials are on the front: no other is at least as good in "
        f"{weighed}."
        if some
        else f"The front is the best in {last}."
    )
    caption = "The dotted stair is the best accuracy at this cost or less."
    drawn = [
        charts.add(against_epsilon(rows, front), f"Further left protects more. {caption}"),
        charts.add(against_bytes(rows, front), f"Further left sends less. {caption}"),
    ]
    return Section("front", "The Pareto front", intro, drawn)


def _privacy(sweep: Sweep, rows: Sequence[Row], charts: Charts) -> list[Section]:
    """Return the section, none where epsilon was not varied."""
    curves = privacy_utility(sweep, rows)
    if not curves.figures:
        return []
    over = ", ".join("seeds" if label == SEED else label for label in curves.over)
    intro = (
        f"What each epsilon buys. A line is the mean over {over}; its band reaches from the "
        "lowest trial to the highest."
        if over
        else "What each epsilon buys. A point is one trial; a sweep over seeds shows the spread."
    )
    caption = f"Mean over {over}, lowest to highest." if over else "One trial a point."
    drawn = Tiles([charts.add(figure, caption) for figure in curves.figures])
    return [Section("privacy", "Privacy and utility", intro, [drawn])]


def _settings(sweep: Sweep, rows: Sequence[Row], front: Collection[str], charts: Charts) -> Section:
    lines, maps = parallel(sweep, rows, front), heat_maps(sweep, rows)
    fanned = (
        "A line is a trial. Lines through one value of a setting are fanned out, the most accurate "
        "on top."
    )
    drawn = charts.add(lines, fanned, wide=True)
    title = "What the settings do"
    if not maps:
        return Section("settings", title, "Every trial across its settings.", [drawn])
    intro = (
        "Every trial across its settings, then each pair of listed settings: the mean accuracy "
        "over all else, seeds among it, in the same colours on every map."
    )
    tiles = Tiles([charts.add(figure, "Mean accuracy over all else.") for figure in maps])
    return Section("settings", title, intro, [drawn, tiles])


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
