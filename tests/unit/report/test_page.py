from __future__ import annotations

import re

import pytest
from plotly.offline import get_plotlyjs

from fedfuse_ray.errors import InputError
from fedfuse_ray.report import (
    RunStore,
    Summary,
    write_comparison,
    write_comparison_report,
    write_report,
    write_run_report,
)
from fedfuse_ray.report.comparison import relative_to_centralized
from tests.support.pages.rendered import charts_of, own_markup
from tests.support.pages.report_sample import DOMAINS, evaluation, summary, write_sample

KINDS = {
    "plain": {},
    "private": {"private": True, "paradigm": "fedfuse"},
    "isolated": {"rounds": 0, "paradigm": "isolated", "attention": False},
    "one domain": {"domains": ("materials",)},
}
PARADIGMS = {"centralized": (0.93, 0), "isolated": (0.72, 0), "fedfuse_nonprivate": (0.915, 3)}


@pytest.fixture(scope="module", params=KINDS)
def page(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    path = write_run_report(write_sample(folder, **{"rounds": 3, **KINDS[request.param]}))
    assert path == folder / "report.html"
    return request.param, path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    summaries = {name: summary(name, rounds, level) for name, (level, rounds) in PARADIGMS.items()}
    for name, (level, rounds) in PARADIGMS.items():
        write_sample(folder / name, rounds=rounds, paradigm=name, level=level)
    write_comparison(folder, summaries)
    return folder, write_report(folder).read_text(encoding="utf-8")


def check_self_contained(page):
    assert len(page.encode()) < 6e6
    assert page.count(get_plotlyjs()) == 1
    markup = own_markup(page)
    assert not re.search(r"https?://|//cdn|<link|<script[^>]* src|<img|@import|url\(", markup)
    assert "default-src 'none'" in markup


def test_a_page_needs_no_network(page):
    check_self_contained(page[1])


def test_every_chart_has_its_place_and_its_words(page):
    charts = charts_of(page[1])
    places = re.findall(
        r'<div class="chart" id="([^"]+)" role="img"[^>]*aria-label="([^"]+)"', page[1]
    )
    assert [name for name, _ in places] == list(charts)
    assert all(": " in label for _, label in places)
    assert all(chart["data"] for chart in charts.values())


def test_a_page_is_a_whole_document(page):
    markup = own_markup(page[1])
    assert markup.startswith('<!DOCTYPE html>\n<html lang="en">')
    for tag in ("section", "figure", "table", "details", "dl", "header", "script"):
        assert len(re.findall(rf"<{tag}[ >]", markup)) == markup.count(f"</{tag}>")
    for target in re.findall(r'href="#([^"]+)"', markup):
        assert f'id="{target}"' in markup


def test_the_key_numbers_stand_at_the_top(page):
    kind, text = page
    header = text[text.index("<header>") : text.index("</header>")]
    domains = KINDS[kind].get("domains", DOMAINS)
    assert "<dt>Accuracy, overall</dt><dd>90.0%</dd>" in header
    assert all(f"Accuracy, {domain}" in header for domain in domains)
    assert ("Privacy loss, epsilon</dt><dd>1.00" in header) == (kind == "private")
    assert ("not private" in header) == (kind != "private")
    assert ("4.0x below fp32" in header) == (kind in ("plain", "private", "one domain"))


def test_settings_and_weights_are_on_record(page):
    assert "preset: demo" in page[1]
    assert "ab" * 32 in page[1]


def test_an_empty_chart_is_a_message(page):
    kind, text = page
    expected = "This paradigm has no communication rounds."
    assert (expected in text) == (kind == "isolated")
    assert ("has no attention weights" in text) == (kind == "isolated")


def test_a_hostile_name_stays_text(tmp_path):
    write_sample(tmp_path, rounds=1)
    evil = "</script><script>alert(1)</script>"
    tree = evaluation()
    tree["domains"]["medical"]["classes"][0] = evil
    store = RunStore(tmp_path)
    store.write_evaluation(tree)
    store.write_summary(summary(rounds=1) | {"preset": evil})
    text = own_markup(write_run_report(tmp_path).read_text())
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_a_comparison_sets_paradigms_side_by_side(compared):
    folder, text = compared
    check_self_contained(text)
    for name in PARADIGMS:
        assert f'<a href="{name}/report.html">{name}</a>' in text
        assert (folder / name / "report.html").is_file()
    row = text[text.index('fedfuse_nonprivate/report.html">') :]
    row = row[: row.index("</tr>")]
    assert "98.4%" in row
    assert "not private" in row
    assert 'class="number best">93.0%' in text
    names = [trace["name"] for chart in charts_of(text).values() for trace in chart["data"]]
    assert "centralized (final)" in names


def test_without_folders_there_are_no_links_and_no_curves(tmp_path):
    path = write_comparison_report(tmp_path, {"isolated": summary("isolated", rounds=0)})
    text = path.read_text()
    assert "href=" not in own_markup(text)
    assert "No paradigm was evaluated round by round." in text


def test_accuracy_relative_to_centralized():
    summaries = {
        name: Summary.model_validate(summary(name, rounds, level))
        for name, (level, rounds) in PARADIGMS.items()
    }
    assert relative_to_centralized(summaries, "isolated") == pytest.approx(0.72 / 0.93)
    del summaries["centralized"]
    assert relative_to_centralized(summaries, "isolated") is None


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(InputError, match="missing"):
        write_report(tmp_path)
    with pytest.raises(InputError, match="nowhere"):
        write_report(tmp_path / "nowhere")
