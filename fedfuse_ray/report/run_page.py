"""One run's page: key numbers, charts with captions, settings and environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from fedfuse_ray.files import write_text
from fedfuse_ray.report import figures
from fedfuse_ray.report.communication import communication
from fedfuse_ray.report.page import (
    Card,
    Charts,
    Code,
    Details,
    Facts,
    Page,
    Panel,
    Part,
    Section,
    Table,
    Tiles,
    document,
)
from fedfuse_ray.report.schema import OVERALL, Summary
from fedfuse_ray.report.store import RunResult, read_run
from fedfuse_ray.report.units import (
    epsilon,
    human_bytes,
    human_seconds,
    percent,
    plain,
    times_fewer,
)


def write_run_report(folder: Path) -> Path:
    """Write `report.html` into a finished run's folder and return its path.

    Raises:
        InputError: The folder or a file of it is missing or broken.
    """
    run = read_run(folder)
    path = run.folder / "report.html"
    write_text(path, run_page(run))
    return path


def write_figure(path: Path, title: str, figure: go.Figure, caption: str) -> None:
    """Write one figure as a page of its own."""
    charts = Charts()
    drawn = Section("figure", title, caption, [charts.add(figure, caption)])
    write_text(path, document(Page(title, [drawn]), charts))


def run_page(run: RunResult) -> str:
    """Return the page of a run, self-contained."""
    charts, summary = Charts(), run.summary
    makers = (_learning, _scores, _modalities, _errors, communication, _time, _privacy)
    sections = [*(make(run, charts) for make in makers), _record(run)]
    page = Page(
        title=f"{summary.paradigm} on {summary.preset}",
        sections=sections,
        kicker=f"fedfuse_ray run of preset {summary.preset}",
        heading=summary.paradigm,
        lead=_lead(run),
        cards=tuple(key_numbers(summary)),
        links=sections,
    )
    return document(page, charts)


def key_numbers(summary: Summary) -> Iterator[Card]:
    """Yield the numbers that a reader looks for first."""
    yield Card("Accuracy, overall", *_scored(summary, OVERALL))
    for domain in summary.domains:
        yield Card(f"Accuracy, {domain}", *_scored(summary, domain))
    privacy, sent, time = summary.privacy, summary.communication, summary.time
    if privacy.private and privacy.delta is not None:
        yield Card("Privacy loss, epsilon", epsilon(privacy), f"at delta {privacy.delta:g}")
    else:
        yield Card("Privacy", "none", epsilon(privacy))
    saving = times_fewer(sent.fp32_uplink_bytes_per_round, sent.uplink_bytes_per_round)
    uplink = human_bytes(sent.uplink_bytes_per_round)
    yield Card("Uplink a round", uplink, saving or f"codec {sent.codec}")
    whole = f"{human_seconds(time.wall_seconds)} in all"
    if summary.rounds:
        yield Card("Time a round", human_seconds(time.seconds_per_round), whole)
    else:
        yield Card("Time", human_seconds(time.wall_seconds), "no rounds")


def _scored(summary: Summary, name: str) -> tuple[str, str]:
    f1 = summary.macro_f1.get(name)
    return percent(summary.accuracy[name]), "" if f1 is None else f"macro-F1 {percent(f1)}"


def _lead(run: RunResult) -> str:
    summary = run.summary
    count = len(run.evaluation.institutions)
    parts = [f"{count} institutions"] if count else []
    parts += [f"{summary.rounds} rounds", f"executor {summary.executor}", f"seed {summary.seed}"]
    return ", ".join(parts)


def _learning(run: RunResult, charts: Charts) -> Section:
    caption = (
        "Accuracy on the consortium's test specimens after each round, and the institutions' mean "
        "training loss. The validation line is measured at the institutions, on specimens of "
        "their own."
    )
    intro = "How the model got better from round to round."
    drawn = charts.add(figures.convergence(run.rounds), caption)
    return Section("learning", "Learning", intro, [drawn])


def _scores(run: RunResult, charts: Charts) -> Section:
    by_domain = (
        "Overall pools the test specimens of all domains. Macro-F1 counts every class alike, so a "
        "gap to accuracy shows that rare classes fare worse."
    )
    by_institution = (
        "Each institution on its whole domain's test set, shown only the modalities that it owns."
    )
    drawn = [
        charts.add(figures.accuracy_by_domain(run.summary), by_domain),
        charts.add(figures.accuracy_by_institution(run.evaluation), by_institution),
    ]
    return Section("scores", "Scores", "What the final model achieves, and for whom.", drawn)


def _modalities(run: RunResult, charts: Charts) -> Section:
    evaluation = run.evaluation
    shown = "Fusion pays where a longer bar stands above all single modalities."
    weights = "A row is a set of modalities shown to the model; its weights sum to one."
    views = [
        charts.add(figures.accuracy_by_view(domain, evaluation), shown)
        for domain in evaluation.domains
    ]
    attention = [
        charts.add(figures.attention(domain, evaluation), weights) for domain in evaluation.domains
    ]
    alone = sorted(run.summary.accuracy_by_modality.items(), key=lambda entry: -entry[1])
    rows = [(name, percent(value)) for name, value in alone]
    single = Details("Accuracy by modality, as a table", [Table(("modality", "accuracy"), rows)])
    return Section(
        "modalities",
        "Missing modalities",
        "What the model knows when a specimen lacks some of its images, and which it trusts.",
        [Tiles(views), Tiles(attention), *([single] if rows else [])],
    )


def _errors(run: RunResult, charts: Charts) -> Section:
    blocks = []
    for domain, entry in run.evaluation.domains.items():
        shown = " + ".join(entry.widest.modalities) if entry.widest else "nothing"
        caption = f"{entry.specimens:,} test specimens, the model shown {shown}."
        blocks.append(charts.add(figures.confusion_matrix(domain, run.evaluation), caption))
    return Section("errors", "Errors", "Which classes are taken for which.", [Tiles(blocks)])


def _time(run: RunResult, charts: Charts) -> Section:
    time = run.summary.time
    caption = (
        f"Wall clock of this simulation: {human_seconds(time.startup_seconds)} to start, "
        f"{human_seconds(time.wall_seconds)} in all."
    )
    if time.simulated_seconds:
        caption += f" On the simulated links it takes {human_seconds(time.simulated_seconds)}."
    chart = charts.add(figures.seconds_per_round(run.rounds), caption)
    return Section("time", "Time", "Where the time goes.", [chart])


def _privacy(run: RunResult, charts: Charts) -> Section:
    privacy = run.summary.privacy
    if not privacy.private:
        return Section(
            "privacy",
            "Privacy",
            "This run is not private: no noise was added, and the result may reveal the training "
            "data. It is the upper bound that a private run is measured against.",
        )
    figure = figures.epsilon_by_round(run.rounds, run.institutions, run.summary)
    caption = "The ledger's epsilon over everything released so far. Smaller protects more."
    pairs = [
        (name.replace("_", " "), plain(value))
        for name, value in privacy.model_dump(exclude={"epsilon_by_institution"}).items()
    ]
    parts: list[Part] = [charts.add(figure, caption), Panel([Facts(pairs)])]
    if own := [(name, f"{e:.3f}") for name, e in privacy.epsilon_by_institution.items()]:
        table = Table(("institution", "epsilon"), own)
        parts.append(Details("Epsilon by institution", [table]))
    intro = "What the result may reveal about one unit of the training data."
    return Section("privacy", "Privacy", intro, parts)


def _record(run: RunResult) -> Section:
    environment = [
        (" ".join(path), "none" if value in ([], None) else str(value))
        for path, value in _leaves(run.environment)
    ]
    environment.append(("weights sha256", run.summary.weights_sha256))
    parts = [
        Details("Configuration", [Code(run.config)]),
        Details("Environment", [Facts(environment)]),
    ]
    if run.institutions.num_rows:
        parts.insert(0, Details("Institutions", [_institutions(run)]))
    return Section("record", "Record", "All that is needed to repeat this run.", parts)


def _institutions(run: RunResult) -> Table:
    totals = run.institutions.group_by(
        ["institution", "domain", "modalities"], use_threads=False
    ).aggregate(
        [("specimens", "max"), ("steps", "sum"), ("train_seconds", "sum"), ("uplink_bytes", "sum")]
    )
    scores = run.evaluation.institutions
    head = ("institution", "domain", "modalities", "specimens", "steps", "training", "uplink")
    rows = [
        (
            row["institution"],
            row["domain"],
            row["modalities"].replace(",", ", "),
            f"{row['specimens_max']:,}",
            f"{row['steps_sum']:,}",
            human_seconds(row["train_seconds_sum"]),
            human_bytes(row["uplink_bytes_sum"]),
            percent(scores[row["institution"]].accuracy if row["institution"] in scores else None),
        )
        for row in totals.to_pylist()
    ]
    return Table((*head, "accuracy"), rows, numbers=3)


def _leaves(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _leaves(value, (*path, str(key)))
    else:
        yield path, ", ".join(map(str, tree)) if isinstance(tree, list) and tree else tree
