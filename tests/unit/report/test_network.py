from __future__ import annotations

from dataclasses import replace

import pytest

from fedfuse_ray.report import RunStore, Summary, figures, read_run
from fedfuse_ray.report.communication import communication
from fedfuse_ray.report.page import Charts
from fedfuse_ray.report.rows import institutions_table
from fedfuse_ray.report.store import read_rounds
from fedfuse_ray.report.theme import is_empty
from fedfuse_ray.report.units import second_unit
from tests.support.pages.rendered import markup_of
from tests.support.pages.report_sample import (
    DEADLINE,
    institution_rows,
    round_row,
    summary,
    write_sample,
)

LATE = ("env-04", 3)


@pytest.fixture(scope="module")
def private(tmp_path_factory):
    return read_run(write_sample(tmp_path_factory.mktemp("run"), rounds=14, private=True))


@pytest.fixture(scope="module")
def ideal(tmp_path_factory):
    return read_run(write_sample(tmp_path_factory.mktemp("ideal"), rounds=3))


def drawn(run, deadline=DEADLINE):
    return figures.timeline(run.rounds, run.institutions, deadline)


def traces(figure):
    return {trace.name: trace for trace in figure.data}


def spans(figure, name, institution):
    """Start and end of each of an institution's bars in a phase."""
    bar = traces(figure)[name]
    lengths = zip(bar.y, bar.base, bar.x, strict=True)
    return [(base, base + length) for y, base, length in lengths if y == institution]


def small(tmp_path, rows, **changed):
    store = RunStore(tmp_path)
    store.append_round(replace(round_row(1, private=True), **changed), rows)
    return read_rounds(tmp_path), institutions_table(rows)


def test_bars_follow_each_other_from_the_start_of_the_round(private):
    figure = drawn(private)
    download, compute, upload = (
        spans(figure, phase, "med-02")[1] for phase in ("download", "compute", "upload")
    )
    assert download == pytest.approx((DEADLINE, DEADLINE + 0.65))
    assert compute == pytest.approx((download[1], download[1] + 0.65))
    assert upload == pytest.approx((compute[1], compute[1] + 1.2))
    assert len(spans(figure, "compute", "med-02")) == 14


def test_the_phases_differ_in_colour_and_in_hatching(private):
    bars = [trace for trace in drawn(private).data if trace.type == "bar"]
    assert len({bar.marker.color for bar in bars}) == len(bars) == 3
    assert len({bar.marker.pattern.shape for bar in bars}) == 3


def test_a_late_institution_is_marked_and_its_bars_end_with_the_round(private):
    figure = drawn(private)
    name, number = LATE
    mark = traces(figure)["late, left out"]
    assert (name, DEADLINE * number) in zip(mark.y, mark.x, strict=True)
    assert spans(figure, "upload", name)[number - 1][1] == pytest.approx(DEADLINE * number)
    assert spans(figure, "upload", name)[0][1] < DEADLINE


def test_who_was_absent_or_lost_is_marked_in_its_round(private):
    marks = traces(drawn(private))
    absent, failed = marks["could not be reached"], marks["lost on the way"]
    assert set(zip(absent.y, absent.customdata, strict=True)) == {
        ("mat-03", number) for number in (2, 7, 12)
    }
    assert absent.x[0] == pytest.approx(DEADLINE * 1.5)
    assert set(zip(failed.y, failed.customdata, strict=True)) == {("med-04", 4), ("med-04", 11)}
    # 0.2 to receive, 0.95 to compute, 0.3 to send, and then nothing arrived.
    assert failed.x[0] == pytest.approx(DEADLINE * 3 + 1.45)
    assert len({absent.marker.symbol, failed.marker.symbol}) == 2


def test_the_deadline_is_drawn_in_every_round_or_not_at_all(private):
    def dashed(figure):
        return [shape.x0 for shape in figure.layout.shapes if shape.line.dash == "dash"]

    figure = drawn(private)
    assert dashed(figure) == pytest.approx([DEADLINE * number for number in range(1, 15)])
    assert "deadline" in traces(figure)
    without = drawn(private, deadline=None)
    assert dashed(without) == []
    assert "deadline" not in traces(without)


def test_a_slider_shows_six_rounds_at_a_time(private):
    layout = drawn(private).layout
    (slider,) = layout.sliders
    assert [step.label for step in slider.steps] == ["1 to 6", "7 to 12", "13 to 14"]
    ranges = [step.args[0]["xaxis.range"] for step in slider.steps]
    assert list(layout.xaxis.range) == ranges[0]
    assert ranges[0][0] < 0 < DEADLINE * 6 < ranges[0][1] < DEADLINE * 6.5
    assert ranges[1][0] < DEADLINE * 6 < DEADLINE * 12 < ranges[1][1]


def test_a_few_rounds_need_no_slider(tmp_path):
    rounds, institutions = small(tmp_path, institution_rows(1, private=True))
    assert not figures.timeline(rounds, institutions).layout.sliders


def test_long_rounds_are_told_in_minutes_and_hours(tmp_path):
    rounds, institutions = small(
        tmp_path, institution_rows(1, private=True), simulated_seconds=1200.0
    )
    figure = figures.timeline(rounds, institutions)
    assert "minutes" in figure.layout.xaxis.title.text
    assert figure.layout.xaxis.range[1] == pytest.approx(20.2)
    assert [second_unit(s)[0] for s in (599, 600, 10_800)] == ["seconds", "minutes", "hours"]


def test_of_very_many_institutions_the_slowest_are_shown(tmp_path):
    first = institution_rows(1, private=True)[0]
    rows = [
        replace(first, institution=f"site-{index}", compute_seconds=float(index % 60))
        for index in range(60)
    ]
    figure = figures.timeline(*small(tmp_path, rows))
    assert "the 40 slowest of 60" in figure.layout.title.text
    assert list(traces(figure)["compute"].y) == [f"site-{index}" for index in range(20, 60)]


def test_an_ideal_network_says_so(ideal):
    assert "ideal" in is_empty(figures.timeline(ideal.rounds, ideal.institutions))


def test_markup_in_an_institutions_name_is_shown_not_obeyed(tmp_path):
    rows = [replace(institution_rows(1, private=True)[0], institution="<b>x</b>")]
    rounds, institutions = small(tmp_path, rows)
    assert traces(figures.timeline(rounds, institutions))["compute"].y[0] == "&lt;b&gt;x&lt;/b&gt;"
    assert figures.bytes_by_institution(institutions).data[0].y[0] == "&lt;b&gt;x&lt;/b&gt;"


def test_the_section_tells_what_became_of_each_institution(private):
    charts = Charts()
    text = markup_of(communication(private, charts), charts)
    assert len(charts.figures) == 4
    assert "<h3>Bits a parameter by block</h3>" in text
    assert "Move the slider" in text
    assert "93% of the uplink" in text
    row = text[text.index("<td>env-04</td>") :]
    cells = row[: row.index("</tr>")].replace('<td class="number">', "|").replace("</td>", "")
    # 1.1 s down, 0.5 + 14 * 0.15 s of computing and 1.5 s more in 4 of 14 rounds, 2.1 s up.
    assert cells.split("|")[1:] == ["10", "4", "0", "0", "1.10 s", "3.03 s", "2.10 s"]
    # Rounds in which it could not be reached do not lower its means.
    row = text[text.index("<td>mat-03</td>") :]
    assert "11</td>" in row[: row.index("</tr>")]
    assert "0.65 s" in row[: row.index("</tr>")]
    dashes = [s for s in charts.figures["chart-4"]["layout"]["shapes"] if "dash" in s["line"]]
    assert len(dashes) == 14


def test_who_was_not_chosen_is_counted_apart(private):
    assert "not selected" not in markup_of(communication(private, Charts()))
    told = [
        "not selected" if row["institution"] == "med-01" and row["round"] <= 4 else row["status"]
        for row in private.institutions.to_pylist()
    ]
    index = private.institutions.column_names.index("status")
    chosen = private.institutions.set_column(index, "status", [told])
    text = markup_of(communication(replace(private, institutions=chosen), Charts()))
    row = text[text.index("<td>med-01</td>") :]
    cells = row[: row.index("</tr>")].replace('<td class="number">', "|").replace("</td>", "")
    assert cells.split("|")[1:6] == ["10", "0", "0", "0", "4"]


def test_the_section_of_an_ideal_network_has_no_timeline_and_no_bits(ideal):
    charts = Charts()
    text = markup_of(communication(ideal, charts), charts)
    assert len(charts.figures) == 2
    assert "the network is ideal" in text
    assert "Bits a parameter" not in text
    assert "Institutions on the network" not in text


def test_where_nothing_was_sent_that_is_said_once(tmp_path):
    rows = [replace(row, uplink_bytes=0, downlink_bytes=0) for row in institution_rows(1)]
    run = read_run(write_sample(tmp_path, rounds=1))
    rounds, institutions = small(
        tmp_path / "silent", rows, uplink_bytes=0, downlink_bytes=0, simulated_seconds=0.0
    )
    silent = replace(
        run,
        rounds=rounds,
        institutions=institutions,
        summary=Summary.model_validate(summary(rounds=0)),
    )
    text = markup_of(communication(silent, Charts()))
    assert text.count('class="empty"') == 1
    assert "Nothing was sent in this run." in text


@pytest.mark.parametrize("config", ["", "network: null\n", "network: {aggregation: {kind: sync}}"])
def test_a_config_without_a_deadline_draws_none(private, config):
    charts = Charts()
    communication(replace(private, config=config), charts)
    dashes = [s for s in charts.figures["chart-4"]["layout"]["shapes"] if "dash" in s["line"]]
    assert dashes == []
