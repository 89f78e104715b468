"""One run's page: key numbers, charts with captions, settings and environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from fedfuse_ray.files import write_text
from fedfuse_ray.report import figures
from fedfuse_ray.report.communication import NAME, TITLE, communication
from fedfuse_ray.report.page import (
    Card,
    Charts,
    cards,
    details,
    document,
    facts,
    grid,
    section,
    table,
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

_SECTIONS = {
    "learning": "Learning",
    "scores": "Scores",
    "modalities": "Missing modalities",
    "errors": "Errors",
    NAME: TITLE,
    "time": "Time",
    "privacy": "Privacy",
    "record": "Record",
}


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
    drawn = section("figure", title, caption, charts.add(figure, caption))
    write_text(path, document(title, f"<main>{drawn}</main>", charts))


def run_page(run: RunResult) -> str:
    """Return the page of a run, self-contained."""
    charts = Charts()
    body = "".join(
        [
            _header(run),
            _learning(run, charts),
            _scores(run, charts),
            _modalities(run, charts),
            _errors(run, charts),
            communication(run, charts),
            _time(run, charts),
            _privacy(run, charts),
            _record(run),
        ]
    )
    return document(f"{run.summary.paradigm} on {run.summary.preset}", body, charts)


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


def _header(run: RunResult) -> str:
    summary = run.summary
    count = len(run.evaluation.institutions)
    parts = [f"{count} institutions"] if count else []
    parts += [f"{summary.rounds} rounds", f"executor {summary.executor}", f"seed {summary.seed}"]
    links = "".join(f'<a href="#{name}">{title}</a>' for name, title in _SECTIONS.items())
    return (
        f'<header><p class="kicker">fedfuse_ray run of preset {escape(summary.preset)}</p>'
        f'<h1>{escape(summary.paradigm)}</h1><p class="lead">{escape(", ".join(parts))}</p>'
        f'{cards(key_numbers(summary))}<nav aria-label="Sections">{links}</nav></header>'
    )


def _section(name: str, intro: str, *blocks: str) -> str:
    return section(name, _SECTIONS[name], intro, *blocks)


def _learning(run: RunResult, charts: Charts) -> str:
    caption = (
        "Accuracy on the consortium's test specimens after each round, and the institutions' mean "
        "training loss. The validation line is measured at the institutions, on specimens of "
        "their own."
    )
    intro = "How the model got better from round to round."
    return _section("learning", intro, charts.add(figures.convergence(run.rounds), caption))


def _scores(run: RunResult, charts: Charts) -> str:
    by_domain = (
        "Overall pools the test specimens of all domains. Macro-F1 counts every class alike, so a "
        "gap to accuracy shows that rare classes fare worse."
    )
    by_institution = (
        "Each institution on its whole domain's test set, shown only the modalities that it owns."
    )
    return _section(
        "scores",
        "What the final model achieves, and for whom.",
        charts.add(figures.accuracy_by_domain(run.summary), by_domain),
        charts.add(figures.accuracy_by_institution(run.evaluation), by_institution),
    )


def _modalities(run: RunResult, charts: Charts) -> str:
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
    rows = [(escape(name), percent(value)) for name, value in alone]
    single = [details("Accuracy by modality, as a table", table(("modality", "accuracy"), rows))]
    return _section(
        "modalities",
        "What the model knows when a specimen lacks some of its images, and which it trusts.",
        grid(views),
        grid(attention),
        *(single if rows else []),
    )


def _errors(run: RunResult, charts: Charts) -> str:
    blocks = []
    for domain, entry in run.evaluation.domains.items():
        shown = " + ".join(entry.widest.modalities) if entry.widest else "nothing"
        caption = f"{entry.specimens:,} test specimens, the model shown {shown}."
        blocks.append(charts.add(figures.confusion_matrix(domain, run.evaluation), caption))
    return _section("errors", "Which classes are taken for which.", grid(blocks))


def _time(run: RunResult, charts: Charts) -> str:
    time = run.summary.time
    caption = (
        f"Wall clock of this simulation: {human_seconds(time.startup_seconds)} to start, "
        f"{human_seconds(time.wall_seconds)} in all."
    )
    if time.simulated_seconds:
        caption += f" On the simulated links it takes {human_seconds(time.simulated_seconds)}."
    chart = charts.add(figures.seconds_per_round(run.rounds), caption)
    return _section("time", "Where the time goes.", chart)


def _privacy(run: RunResult, charts: Charts) -> str:
    privacy = run.summary.privacy
    if not privacy.private:
        return _section(
            "privacy",
            "This run is not private: no noise was added, and the result may reveal the training "
            "data. It is the upper bound that a private run is measured against.",
        )
    figure = figures.epsilon_by_round(run.rounds, run.institutions, run.summary)
    caption = "The ledger's epsilon over everything released so far. Smaller protects more."
    pairs = [
        (name.replace("_", " "), plain(value))
        for name, value in privacy.model_dump(exclude={"epsilon_by_institution"}).items()
    ]
    own = [(escape(name), f"{e:.3f}") for name, e in privacy.epsilon_by_institution.items()]
    return _section(
        "privacy",
        "What the result may reveal about one unit of the training data.",
        charts.add(figure, caption),
        f'<div class="panel">{facts(pairs)}</div>',
        details("Epsilon by institution", table(("institution", "epsilon"), own)) if own else "",
    )


def _record(run: RunResult) -> str:
    environment = [
        (" ".join(path), "none" if value in ([], None) else str(value))
        for path, value in _leaves(run.environment)
    ]
    environment.append(("weights sha256", run.summary.weights_sha256))
    return _section(
        "record",
        "All that is needed to repeat this run.",
        details("Institutions", _institutions(run)) if run.institutions.num_rows else "",
        details("Configuration", f"<pre><code>{escape(run.config)}</code></pre>"),
        details("Environment", facts(environment)),
    )


def _institutions(run: RunResult) -> str:
    totals = run.institutions.group_by(
        ["institution", "domain", "modalities"], use_threads=False
    ).aggregate(
        [("specimens", "max"), ("steps", "sum"), ("train_seconds", "sum"), ("uplink_bytes", "sum")]
    )
    scores = run.evaluation.institutions
    head = ("institution", "domain", "modalities", "specimens", "steps", "training", "uplink")
    rows = [
        (
            escape(row["institution"]),
            escape(row["domain"]),
            escape(row["modalities"].replace(",", ", ")),
            f"{row['specimens_max']:,}",
            f"{row['steps_sum']:,}",
            human_seconds(row["train_seconds_sum"]),
            human_bytes(row["uplink_bytes_sum"]),
            percent(scores[row["institution"]].accuracy if row["institution"] in scores else None),
        )
        for row in totals.to_pylist()
    ]
    return table((*head, "accuracy"), rows, numbers=3)


def _leaves(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _leaves(value, (*path, str(key)))
    else:
        yield path, ", ".join(map(str, tree)) if isinstance(tree, list) and tree else tree
