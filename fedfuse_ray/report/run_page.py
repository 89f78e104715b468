"""One run's page: key numbers, charts with captions, settings and environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from fedfuse_ray.files import write_text
from fedfuse_ray.report import figures, protection
from fedfuse_ray.report.communication import communication
from fedfuse_ray.report.page import (
    Card,
    Charts,
    Facts,
    Group,
    Page,
    Part,
    Section,
    Table,
    Text,
    document,
    section,
    texts_of,
)
from fedfuse_ray.report.schema import OVERALL, Evaluation, Summary
from fedfuse_ray.report.store import RunResult, read_run
from fedfuse_ray.report.units import (
    epsilon,
    human_bytes,
    human_seconds,
    percent,
    plain,
    records_total,
    times_fewer,
)

_TEXTS = texts_of("fedfuse_ray.report")


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
        cards=tuple(key_numbers(summary, run.evaluation)),
        links=sections,
    )
    return document(page, charts)


def key_numbers(summary: Summary, evaluation: Evaluation) -> Iterator[Card]:
    """Yield the numbers that a reader looks for first."""
    badge = protection.scores_badge(summary, evaluation)
    yield Card("Accuracy, overall", *_scored(summary, OVERALL), badge)
    for domain in summary.domains:
        badge = protection.domain_badge(summary, evaluation, domain)
        yield Card(f"Accuracy, {domain}", *_scored(summary, domain), badge)
    privacy, sent, time = summary.privacy, summary.communication, summary.time
    if privacy.private and privacy.delta is not None:
        note = f"at delta {privacy.delta:g}, per {privacy.unit}"
        if privacy.total_epsilon is not None:
            note += f"; {privacy.total_epsilon:.2f} over all runs on these records"
        yield Card("Privacy loss, epsilon", epsilon(privacy), note)
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
    told, privacy = _TEXTS["learning"], run.summary.privacy
    private = privacy.scores == "private"
    figure = figures.convergence(run.rounds, private=private)
    badge = protection.curves_badge(run.summary, run.evaluation)
    if privacy.private and not private:
        badge = protection.SHOWN
    caption = told["private" if private else "caption"]
    return section(_TEXTS, "learning", [charts.add(figure, caption, badge=badge)])


def _scores(run: RunResult, charts: Charts) -> Section:
    drawn = {
        "by_domain": figures.accuracy_by_domain(run.summary),
        "by_institution": figures.accuracy_by_institution(run.evaluation),
    }
    told, scored = _TEXTS["scores"], (run.summary, run.evaluation)
    badges = {
        "by_domain": protection.scores_badge(*scored),
        "by_institution": protection.curves_badge(*scored),
    }
    parts = [charts.add(f, told[name], badge=badges[name]) for name, f in drawn.items()]
    return section(_TEXTS, "scores", parts)


def _modalities(run: RunResult, charts: Charts) -> Section:
    told, evaluation = _TEXTS["modalities"], run.evaluation
    tiles = {"shown": figures.accuracy_by_view, "weights": figures.attention}
    badges = {d: protection.domain_badge(run.summary, evaluation, d) for d in evaluation.domains}
    parts = []
    for name, draw in tiles.items():
        drawn = [
            charts.add(
                draw(domain, evaluation),
                told["noised" if entry.source == "noised" else name],
                badge=badges[domain],
            )
            for domain, entry in evaluation.domains.items()
        ]
        parts.append(Group(drawn, "", "tiles"))
    alone = sorted(run.summary.accuracy_by_modality.items(), key=lambda entry: -entry[1])
    if rows := [(name, percent(value)) for name, value in alone]:
        table = Table(("modality", "accuracy"), rows)
        parts.append(Group([table], "Accuracy by modality, as a table", "details"))
    return section(_TEXTS, "modalities", parts)


def _errors(run: RunResult, charts: Charts) -> Section:
    parts = []
    for domain, entry in run.evaluation.domains.items():
        shown = " + ".join(entry.widest.modalities) if entry.widest else "nothing"
        caption = f"{entry.specimens:,} test specimens, the model shown {shown}."
        if entry.source == "noised":
            caption += f" {_TEXTS['errors']['noised']}"
        badge = protection.domain_badge(run.summary, run.evaluation, domain)
        drawn = figures.confusion_matrix(domain, run.evaluation)
        parts.append(charts.add(drawn, caption, badge=badge))
    return section(_TEXTS, "errors", [Group(parts, kind="tiles")])


def _time(run: RunResult, charts: Charts) -> Section:
    time = run.summary.time
    caption = (
        f"Wall clock of this simulation: {human_seconds(time.startup_seconds)} to start, "
        f"{human_seconds(time.wall_seconds)} in all."
    )
    if time.simulated_seconds:
        caption += f" On the simulated links it takes {human_seconds(time.simulated_seconds)}."
    return section(_TEXTS, "time", [charts.add(figures.seconds_per_round(run.rounds), caption)])


def _privacy(run: RunResult, charts: Charts) -> Section:
    privacy, told = run.summary.privacy, _TEXTS["privacy"]
    if not privacy.private:
        return Section("privacy", told["title"], told["none"], _total(run))
    figure = figures.epsilon_by_round(run.rounds, run.institutions, run.summary)
    pairs = [
        (name.replace("_", " "), plain(value))
        for name, value in privacy.model_dump(exclude={"epsilon_by_institution"}).items()
    ]
    kinds = protection.facts(run.summary, run.evaluation)
    parts: list[Part] = [
        *_total(run),
        charts.add(figure, told["caption"]),
        Group([Facts(pairs)]),
        Group([Facts(kinds)], "What protects each figure of this page", "details"),
    ]
    if own := [(name, f"{e:.3f}") for name, e in privacy.epsilon_by_institution.items()]:
        table = Table(("institution", "epsilon"), own)
        parts.append(Group([table], "Epsilon by institution", "details"))
    return section(_TEXTS, "privacy", parts)


def _total(run: RunResult) -> list[Part]:
    told = records_total([run.summary.privacy])
    return [Text(told)] if told else []


def _record(run: RunResult) -> Section:
    environment = [
        (" ".join(path), "none" if value in ([], None) else str(value))
        for path, value in _leaves(run.environment)
    ]
    environment.append(("weights sha256", run.summary.weights_sha256))
    parts = [
        Group([Text(run.config, kind="code")], "Configuration", "details"),
        Group([Facts(environment)], "Environment", "details"),
    ]
    if run.institutions.num_rows:
        parts.insert(0, Group([_institutions(run)], "Institutions", "details"))
    return section(_TEXTS, "record", parts)


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
