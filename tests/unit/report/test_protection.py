"""What a private run's page and table say of each figure: public, noised and charged, or shown."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from fedfuse_ray.report import RunStore, Summary, read_run, run_table
from fedfuse_ray.report.protection import LEFT_OUT, NOISED, PUBLIC, SHOWN
from fedfuse_ray.report.run_page import write_run_report
from tests.support.pages.rendered import charts_of, own_markup
from tests.support.pages.report_sample import (
    evaluation,
    institution_rows,
    round_row,
    summary,
    write_sample,
)

SOURCES = {"medical": "public", "materials": "noised", "environmental": "public"}


def write_private(folder, sources=SOURCES, scores="private", mode="record-distributed"):
    """Write a private run's folder, scored on so much of each domain's test set."""
    noised = [name for name, source in sources.items() if source == "noised"]
    told, tree = summary("fedfuse", rounds=3, private=True), evaluation()
    told["privacy"] |= {"scores": scores, "noised": noised, "mode": mode}
    for name, source in sources.items():
        tree["domains"][name]["source"] = source
    for domain in noised:
        tree["domains"][domain]["views"] = tree["domains"][domain]["views"][-1:]
        tree["domains"][domain]["views"][0]["attention"] = None
        for entry in tree["institutions"].values():
            if entry["domain"] == domain:
                entry["accuracy"] = None
    store = RunStore(folder)
    store.start("seed: 0\n", {})
    for number in (1, 2, 3):
        row = round_row(number, private=True)
        accuracies = row.domain_accuracy | dict.fromkeys(noised)
        row = replace(row, accuracy=None if noised else row.accuracy, domain_accuracy=accuracies)
        if scores == "private":
            row = replace(row, loss=None, validation_accuracy=None)
        store.append_round(row, institution_rows(number, private=True))
    store.write_evaluation(tree)
    store.write_summary(told)
    return own_markup(write_run_report(folder).read_text())


def printed(folder):
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(run_table(read_run(folder).summary))
    return " ".join(console.export_text().replace("│", " ").split())


def heading(page, title):
    """Return what stands beside a chart's title."""
    return page.split(f"<h3>{title}", 1)[1].split("</h3>", 1)[0]


def test_each_figure_says_what_protects_it(tmp_path):
    page = write_private(tmp_path)
    assert PUBLIC in heading(page, "medical: confusion matrix")
    assert NOISED in heading(page, "materials: confusion matrix")
    assert NOISED in heading(page, "Accuracy by domain")  # the least of all domains
    assert PUBLIC in heading(page, "Accuracy by round")  # which has no noised ones
    assert PUBLIC in heading(page, "Accuracy by institution")
    assert f'<dd class="badge">{PUBLIC}</dd>' in page
    assert f'<dd class="badge">{NOISED}</dd>' in page
    assert "What protects each figure of this page" in page
    assert LEFT_OUT in page
    assert "these are likely ones" in page
    assert f"private {NOISED}: materials" in printed(tmp_path)


def test_what_is_left_out_is_not_drawn(tmp_path):
    page = write_private(tmp_path)
    assert "Accuracy and loss by round" not in page
    whole = (tmp_path / "report.html").read_text()
    names = {trace["name"] for trace in charts_of(whole)["chart-1"]["data"]}
    assert names == {"medical", "environmental"}
    assert "Left out: it would tell" in page  # the attention of materials


def test_scores_of_public_specimens_alone_cost_nothing(tmp_path):
    page = write_private(tmp_path, dict.fromkeys(SOURCES, "public"))
    assert PUBLIC in heading(page, "Accuracy by round")
    assert NOISED not in page
    assert f"private {PUBLIC}" in printed(tmp_path)


def test_a_test_set_that_only_institutions_hold_has_no_curve(tmp_path):
    page = write_private(tmp_path, dict.fromkeys(SOURCES, "noised"))
    assert "Scored once, at the end" in page
    assert "Left out: it would tell" in page


def test_traffic_of_a_trusted_server_is_not_called_protected(tmp_path):
    public = dict.fromkeys(SOURCES, "public")
    assert "they tell who was sampled" in write_private(tmp_path / "a", public, mode="client")
    assert "they tell who was sampled" not in write_private(tmp_path / "b", public)


def test_shown_figures_are_marked_as_such(tmp_path):
    page = write_private(tmp_path, SOURCES | {"materials": "all"}, scores="shown")
    assert SHOWN in heading(page, "Accuracy and loss by round")
    assert SHOWN in heading(page, "Accuracy by domain")
    assert PUBLIC in heading(page, "medical: confusion matrix")
    assert f"shown {SHOWN}" in printed(tmp_path)


@pytest.mark.parametrize("private", [True, False])
def test_older_and_open_runs_are_never_called_protected(private, tmp_path):
    page = own_markup(
        write_run_report(write_sample(tmp_path, rounds=2, private=private)).read_text()
    )
    assert PUBLIC not in page
    assert (SHOWN in page) == private


def test_keys_of_protection_are_written_where_they_say_something():
    told = summary(private=True)
    assert "scores" not in Summary.model_validate(told).model_dump()["privacy"]
    told["privacy"] |= {"scores": "private"}
    written = Summary.model_validate(told).model_dump()["privacy"]
    assert written["scores"] == "private"
    assert "noised" not in written
