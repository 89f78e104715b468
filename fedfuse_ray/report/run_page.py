"""One run's page: key numbers, charts with captions, settings and environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from fedfuse_ray.files import write_text
from fedfuse_ray.report import figures, page, units
from fedfuse_ray.report.communication import communication
from fedfuse_ray.report.schema import OVERALL, Summary
from fedfuse_ray.report.store import RunResult, read_run


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
    charts = page.Charts()
    drawn = page.Section("figure", title, caption, [charts.add(figure, caption)])
    write_text(path, page.document(page.Page(title, [drawn]), charts))


def run_page(run: RunResult) -> str:
    """Return the page of a run, self-contained."""
    charts, summary = page.Charts(), run.summary
    makers = (_learning, _scores, _modalities, _errors, communication, _time, _privacy)
    sections = [*(make(run, charts) for make in makers), _record(run)]
    whole = page.Page(
        title=f"{summary.paradigm} on {summary.preset}",
        sections=sections,
        kicker=f"fedfuse_ray run of preset {summary.preset}",
        heading=summary.paradigm,
        lead=_lead(run),
        cards=tuple(key_numbers(summary)),
        links=sections,
    )
    return page.document(whole, charts)


def key_numbers(summary: Summary) -> Iterator[page.Card]:
    """Yield the numbers that a reader looks for first."""
    yield page.Card("Accuracy, overall", *_scored(summary, OVERALL))
    for domain in summary.domains:
        yield page.Card(f"Accuracy, {domain}", *_scored(summary, domain))
    privacy, sent, time = summary.privacy, summary.communication, summary.time
    if privacy.private and privacy.delta is not None:
        yield page.Card(
            "Privacy loss, epsilon", units.epsilon(privacy), f"at delta {privacy.delta:g}"
        )
    else:
        yield page.Card("Privacy", "none", units.epsilon(privacy))
    saving = units.times_fewer(sent.fp32_uplink_bytes_per_round, sent.uplink_bytes_per_round)
    uplink = units.human_bytes(sent.uplink_bytes_per_round)
    yield page.Card("Uplink a round", uplink, saving or f"codec {sent.codec}")
    whole = f"{units.human_seconds(time.wall_seconds)} in all"
    if summary.rounds:
        yield page.Card("Time a round", units.human_seconds(time.seconds_per_round), whole)
    else:
        yield page.Card("Time", units.human_seconds(time.wall_seconds), "no rounds")


def _scored(summary: Summary, name: str) -> tuple[str, str]:
    f1 = summary.macro_f1.get(name)
    note = "" if f1 is None else f"macro-F1 {units.percent(f1)}"
    return units.percent(summary.accuracy[name]), note


def _lead(run: RunResult) -> str:
    summary = run.summary
    count = len(run.evaluation.institutions)
    parts = [f"{count} institutions"] if count else []
    parts += [f"{summary.rounds} rounds", f"executor {summary.executor}", f"seed {summary.seed}"]
    return ", ".join(parts)


def _learning(run: RunResult, charts: page.Charts) -> page.Section:
    caption = (
        "Accuracy on the consortium's test specimens after each round, and the institutions' mean "
        "training loss. The validation line is measured at the institutions, on specimens of "
        "their own."
    )
    intro = "How the model got better from round to round."
    drawn = charts.add(figures.convergence(run.rounds), caption)
    return page.Section("learning", "Learning", intro, [drawn])


def _scores(run: RunResult, charts: page.Charts) -> page.Section:
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
    return page.Section("scores", "Scores", "What the final model achieves, and for whom.", drawn)


def _modalities(run: RunResult, charts: page.Charts) -> page.Section:
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
    rows = [(name, units.percent(value)) for name, value in alone]
    single = page.Details(
        "Accuracy by modality, as a table", [page.Table(("modality", "accuracy"), rows)]
    )
    return page.Section(
        "modalities",
        "Missing modalities",
        "What the model knows when a specimen lacks some of its images, and which it trusts.",
        [page.Tiles(views), page.Tiles(attention), *([single] if rows else [])],
    )


def _errors(run: RunResult, charts: page.Charts) -> page.Section:
    blocks = []
    for domain, entry in run.evaluation.domains.items():
        shown = " + ".join(entry.widest.modalities) if entry.widest else "nothing"
        caption = f"{entry.specimens:,} test specimens, the model shown {shown}."
        blocks.append(charts.add(figures.confusion_matrix(domain, run.evaluation), caption))
    return page.Section(
        "errors", "Errors", "Which classes are taken for which.", [page.Tiles(blocks)]
    )


def _time(run: RunResult, charts: page.Charts) -> page.Section:
    time = run.summary.time
    caption = (
        f"Wall clock of this simulation: {units.human_seconds(time.startup_seconds)} to start, "
        f"{units.human_seconds(time.wall_seconds)} in all."
    )
    if time.simulated_seconds:
        caption += (
            f" On the simulated links it takes {units.human_seconds(time.simulated_seconds)}."
        )
    chart = charts.add(figures.seconds_per_round(run.rounds), caption)
    return page.Section("time", "Time", "Where the time goes.", [chart])


def _privacy(run: RunResult, charts: page.Charts) -> page.Section:
    privacy = run.summary.privacy
    if not privacy.private:
        return page.Section(
            "privacy",
            "Privacy",
            "This run is not private: no noise was added, and the result may reveal the training "
            "data. It is the upper bound that a private run is measured against.",
        )
    figure = figures.epsilon_by_round(run.rounds, run.institutions, run.summary)
    caption = "The ledger's epsilon over everything released so far. Smaller protects more."
    pairs = [
        (name.replace("_", " "), units.plain(value))
        for name, value in privacy.model_dump(exclude={"epsilon_by_institution"}).items()
    ]
    parts: list[page.Part] = [charts.add(figure, caption), page.Panel([page.Facts(pairs)])]
    if own := [(name, f"{e:.3f}") for name, e in privacy.epsilon_by_institution.items()]:
        table = page.Table(("institution", "epsilon"), own)
        parts.append(page.Details("Epsilon by institution", [table]))
    intro = "What the result may reveal about one unit of the training data."
    return page.Section("privacy", "Privacy", intro, parts)


def _record(run: RunResult) -> page.Section:
    environment = [
        (" ".join(path), "none" if value in ([], None) else str(value))
        for path, value in _leaves(run.environment)
    ]
    environment.append(("weights sha256", run.summary.weights_sha256))
    parts = [
        page.Details("Configuration", [page.Code(run.config)]),
        page.Details("Environment", [page.Facts(environment)]),
    ]
    if run.institutions.num_rows:
        parts.insert(0, page.Details("Institutions", [_institutions(run)]))
    return page.Section("record", "Record", "All that is needed to repeat this run.", parts)


def _institutions(run: RunResult) -> page.Table:
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
            units.human_seconds(row["train_seconds_sum"]),
            units.human_bytes(row["uplink_bytes_sum"]),
            units.percent(
                scores[row["institution"]].accuracy if row["institution"] in scores else None
            ),
        )
        for row in totals.to_pylist()
    ]
    return page.Table((*head, "accuracy"), rows, numbers=3)


def _leaves(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _leaves(value, (*path, str(key)))
    else:
        yield path, ", ".join(map(str, tree)) if isinstance(tree, list) and tree else tree
