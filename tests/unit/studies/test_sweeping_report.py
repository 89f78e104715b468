"""The sweep page's charts and its table, from rows alone."""

from __future__ import annotations

import re

import pytest

from fedfuse_ray.report.theme import is_empty
from fedfuse_ray.studies.sweeping.loading import validate_sweep
from fedfuse_ray.studies.sweeping.report import sweep_page
from fedfuse_ray.studies.sweeping.report.curves import privacy_utility
from fedfuse_ray.studies.sweeping.report.heat import heat_maps
from fedfuse_ray.studies.sweeping.report.parallel import parallel
from fedfuse_ray.studies.sweeping.report.pareto import against_bytes, against_epsilon
from fedfuse_ray.studies.sweeping.report.settings import (
    folded,
    log_ticks,
    tick_bytes,
    told,
    varying,
)
from fedfuse_ray.studies.sweeping.report.table import trials_table
from fedfuse_ray.studies.sweeping.store import DONE, FAILED, STOPPED, Row
from fedfuse_ray.studies.sweeping.summary import Selection
from tests.support.pages.rendered import markup_of

EPSILON = "privacy.target_epsilon"
SWEEP = validate_sweep(
    {
        "base": "tiny",
        "space": {
            "paradigm": ["fedfuse", "federated_dp"],
            EPSILON: [1, 4],
            "compression": [{"codec": "fp32"}, {"codec": "modint", "bits": 8}],
            "seed": [0, 1],
        },
    }
)


def row(index, values, accuracy, epsilon, uplink=1e5, status=DONE):
    return Row(
        index=index,
        trial=f"{index:02d}-<t>",
        values=values,
        status=status,
        accuracy=accuracy,
        domains={"medical": None if accuracy is None else accuracy / 2},
        epsilon=epsilon,
        uplink_bytes=uplink,
        rounds=3,
    )


def gridded():
    rows = []
    for paradigm in SWEEP.space["paradigm"].values:
        for epsilon in (1, 4):
            for compression in SWEEP.space["compression"].values:
                for seed in (0, 1):
                    values = {"paradigm": paradigm, EPSILON: epsilon}
                    values |= {"compression": compression, "seed": seed}
                    accuracy = 0.2 * (paradigm == "fedfuse") + 0.1 * epsilon + 0.1 * seed
                    sent = 4e5 if compression["codec"] == "fp32" else 1e5
                    rows.append(row(len(rows), values, accuracy, epsilon * 0.999, sent))
    return rows


def traces(figure):
    return {trace.name: trace for trace in figure.data if trace.name}


def test_settings_that_differ_are_named_briefly_and_in_order():
    rows = gridded()
    found = varying(SWEEP, rows)
    assert [s.label for s in found] == ["paradigm", "target_epsilon", "compression", "seed"]
    assert found[1].values == (1, 4)
    assert varying(SWEEP, rows[:2])[0].label == "seed"
    assert told({"codec": "modint", "bits": 8}) == "codec modint, bits 8"
    assert told("<b>") == "&lt;b&gt;"
    assert folded("a_very_long_name_of_a_setting") == "a_very_long_<br>name_of_a_<br>setting"
    twice = validate_sweep({"base": "tiny", "space": {"a.rate": [1, 2], "b.rate": [1, 2]}})
    both = [row(i, {"a.rate": i, "b.rate": i}, 0.5, None) for i in (1, 2)]
    assert [s.label for s in varying(twice, both)] == ["a.rate", "b.rate"]


def test_ticks_are_the_values_themselves_where_they_are_few():
    assert log_ticks([0.5, 1, 4.0], str)["tickvals"] == [0.5, 1.0, 4.0]
    many = log_ticks([1.0 + i for i in range(90)], tick_bytes)
    assert 2 <= len(many["tickvals"]) <= 7
    assert log_ticks([3.1, 3.2, 3.3], str)["tickvals"] == [3.1, 3.3]


def test_trials_stand_at_their_cost_and_those_without_privacy_to_the_right():
    rows = [
        row(0, {EPSILON: 1}, 0.4, 1.0),
        row(1, {EPSILON: 4}, 0.3, 4.0, 5e5),
        row(2, {EPSILON: None}, 0.9, None, 5e5),
        row(3, {EPSILON: 4}, 0.8, 4.0, status=STOPPED),
        row(4, {EPSILON: 4}, None, None, None, FAILED),
    ]
    front = {rows[0].trial, rows[2].trial}
    figure = against_epsilon(rows, front)
    by_name = traces(figure)
    assert by_name["other trials"].x == (4.0,)
    assert by_name["Pareto front"].x[0] == 1.0
    assert by_name["Pareto front"].x[1] > 4.0
    assert figure.layout.xaxis.ticktext[-1] == "not private"
    assert figure.layout.xaxis.tickvals[-1] == by_name["Pareto front"].x[1]
    assert by_name["stopped early"].y == (0.8,)
    assert by_name["best at this cost or less"].y == (0.4, 0.4, 0.9)
    sent = traces(against_bytes(rows, front))
    assert sent["not private"].y == (0.9,)
    assert sent["Pareto front"].x == (1e5,)
    assert sent["Pareto front"].marker.color[0] < sent["other trials"].marker.color[0]


@pytest.mark.parametrize("chart", [against_epsilon, against_bytes])
def test_without_costs_or_scores_a_chart_says_why(chart):
    assert "No trial has an accuracy" in is_empty(chart([row(0, {}, None, None)], ()))
    assert "No trial" in is_empty(chart([row(0, {}, 0.5, None, None)], ()))


def test_heat_maps_are_means_over_all_else():
    maps = {figure.layout.title.text: figure for figure in heat_maps(SWEEP, gridded())}
    assert len(maps) == 3
    cells = maps["paradigm and target_epsilon"].data[0]
    assert cells.x == ("1", "4")
    assert cells.y == ("fedfuse", "federated_dp")
    assert cells.z[0] == pytest.approx([0.35, 0.65])
    assert cells.z[1] == pytest.approx([0.15, 0.45])
    assert cells.customdata[0][0] == "4 trials, 30.0% to 40.0%"
    for figure in maps.values():
        assert (figure.data[0].zmin, figure.data[0].zmax) == pytest.approx((0.15, 0.65))


def test_maps_that_would_be_empty_or_one_cell_wide_are_left_out():
    rows = gridded()
    assert heat_maps(SWEEP, [r for r in rows if r.values[EPSILON] == 1])[0].layout.title.text == (
        "compression and paradigm"
    )
    assert heat_maps(SWEEP, rows[:2]) == []
    diagonal = [rows[0], rows[-1]]
    assert heat_maps(SWEEP, diagonal) == []
    stopped = [row(r.index, r.values, r.accuracy, r.epsilon, status=STOPPED) for r in rows]
    assert heat_maps(SWEEP, stopped) == []


def test_curves_are_means_with_bands_a_line_for_each_other_setting():
    curves = privacy_utility(SWEEP, gridded())
    assert list(curves.over) == ["seed"]
    titles = [figure.layout.title.text for figure in curves.figures]
    assert titles == ["Accuracy, overall", "Accuracy, medical"]
    by_name = traces(curves.figures[0])
    assert set(by_name) == {
        "fedfuse, compression codec fp32",
        "fedfuse, compression codec modint, bits 8",
        "federated_dp, compression codec fp32",
        "federated_dp, compression codec modint, bits 8",
    }
    line = by_name["fedfuse, compression codec fp32"]
    assert line.x == pytest.approx([0.999, 3.996])
    assert line.y == pytest.approx([0.35, 0.65])
    assert traces(curves.figures[1])[line.name].y == pytest.approx([0.175, 0.325])
    band = next(trace for trace in curves.figures[0].data if trace.fill == "toself")
    assert band.y == pytest.approx([0.4, 0.7, 0.6, 0.3])


def test_curves_without_privacy_are_levels_and_need_epsilon_to_vary():
    rows = gridded()
    level = [
        row(r.index, r.values, 0.9, None) if r.values["paradigm"] == "fedfuse" else r for r in rows
    ]
    by_name = traces(privacy_utility(SWEEP, level).figures[0])
    dashed = by_name["fedfuse, compression codec fp32 (not private)"]
    assert dashed.y == pytest.approx([0.9, 0.9])
    assert dashed.line.dash == "dash"
    assert not privacy_utility(SWEEP, [r for r in rows if r.values[EPSILON] == 1]).figures


def test_a_line_crosses_each_axis_at_the_trials_value():
    rows = gridded()
    figure = parallel(SWEEP, rows, {rows[7].trial})
    labels = [re.sub("<[^>]*>", "", text) for text in figure.layout.xaxis.ticktext]
    assert labels == [
        "paradigm", "target_epsilon", "compression", "epsilon", "bytes sent up", "accuracy"
    ]  # fmt: skip
    assert len(figure.data) == len(rows)
    (best,) = [trace for trace in figure.data if trace.name == "Pareto front"]
    paradigm, epsilon, _, spent, sent, accuracy = best.y
    assert (round(paradigm), round(epsilon)) == (0, 1)
    assert (spent, sent, accuracy) == pytest.approx((1.0, 0.0, 1.0))
    lines = [trace.y[0] for trace in figure.data if trace.y[0] < 0.5]
    assert len(set(lines)) == 8  # fanned out


def test_axes_of_drawn_settings_are_scaled_as_they_were_drawn():
    space = {"privacy.clip_norm": {"loguniform": [0.1, 10]}, "x": {"uniform": [0, 1]}}
    sweep = validate_sweep(
        {"base": "tiny", "space": space, "search": {"kind": "random", "trials": 3}}
    )
    points = [(0.1, 0.0), (1.0, 0.25), (10.0, 1.0)]
    rows = [
        row(i, {"privacy.clip_norm": c, "x": x}, 0.1 * i, None) for i, (c, x) in enumerate(points)
    ]
    figure = parallel(sweep, rows, ())
    assert [trace.y[:2] for trace in figure.data] == [
        pytest.approx((0.0, 0.0)), pytest.approx((0.5, 0.25)), pytest.approx((1.0, 1.0))
    ]  # fmt: skip
    assert is_empty(parallel(sweep, rows[:1], ()))


def test_the_table_sorts_by_numbers_and_links_what_has_a_report():
    rows = [*gridded(), row(16, {"paradigm": "fedfuse", EPSILON: 1}, None, None, None, FAILED)]
    html = markup_of(trials_table(SWEEP, rows, {rows[3].trial}))
    assert 'data-sort="100000.0">100 kB' in html
    last = html.partition("<script>")[0].rpartition("<tr>")[2]
    assert last.count('data-sort="">') == 5  # overall, domain, epsilon, uplink, time
    assert html.count('href="trials/') == 16
    assert html.count('class="number best"') == 1
    assert 'title="16-&lt;t&gt;" data-sort="16">16</td>' in html
    assert "codec modint, bits 8" in html
    assert "aria-sort" in html


def test_the_page_shows_what_the_sweep_has_and_no_more():
    page = sweep_page(SWEEP, gridded(), Selection(None, "Not charged."))
    for name in ("front", "privacy", "settings", "selection", "trials"):
        assert f'<section id="{name}"' in page
        assert f'href="#{name}"' in page
    assert "Mean over seeds" in page
    failed = [row(0, {"paradigm": "fedfuse"}, None, None, None, FAILED)]
    bare = sweep_page(SWEEP, failed, Selection(None, "Not charged."))
    assert 'id="privacy"' not in bare
    assert "1 failed" in bare
    for told_page in (page, bare):
        assert "<t>" not in told_page
        assert not re.search(r"<(script|img|link)[^>]+(src|href)=.https?:", told_page)
