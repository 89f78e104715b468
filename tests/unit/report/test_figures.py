from __future__ import annotations

from dataclasses import replace

import pytest

from fedfuse_ray.report import Evaluation, RunStore, Summary, figures, read_run
from fedfuse_ray.report.rows import INSTITUTIONS
from fedfuse_ray.report.store import read_rounds
from fedfuse_ray.report.theme import OKABE_ITO, is_empty, marks
from tests.support.pages.report_sample import (
    DOMAINS,
    evaluation,
    institution_rows,
    round_row,
    summary,
    write_sample,
)

EVALUATION = Evaluation.model_validate(evaluation())
SUMMARY = Summary.model_validate(summary())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return read_run(write_sample(tmp_path_factory.mktemp("run"), rounds=4))


@pytest.fixture(scope="module")
def private(tmp_path_factory):
    folder = tmp_path_factory.mktemp("private")
    return read_run(write_sample(folder, rounds=4, private=True, paradigm="fedfuse"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return read_run(write_sample(tmp_path_factory.mktemp("alone"), rounds=0))


def traces(figure):
    return {trace.name: trace for trace in figure.data}


def every_figure(run):
    yield figures.convergence(run.rounds)
    yield figures.bytes_per_round(run.rounds, run.institutions, run.summary)
    yield figures.bytes_by_institution(run.institutions)
    yield figures.bits_by_block(run.institutions)
    yield figures.timeline(run.rounds, run.institutions)
    yield figures.seconds_per_round(run.rounds)
    yield figures.epsilon_by_round(run.rounds, run.institutions, run.summary)
    yield figures.accuracy_by_domain(run.summary)
    yield figures.accuracy_by_institution(run.evaluation)
    for domain in run.evaluation.domains:
        yield figures.accuracy_by_view(domain, run.evaluation)
        yield figures.attention(domain, run.evaluation)
        yield figures.confusion_matrix(domain, run.evaluation)


@pytest.mark.parametrize("kind", ["run", "private", "alone"])
def test_every_chart_has_a_title_a_height_and_named_axes_or_a_message(kind, request):
    for figure in every_figure(request.getfixturevalue(kind)):
        assert figure.layout.title.text
        assert figure.layout.height >= 100
        if is_empty(figure) is None:
            axes = [axis for axis in figure.layout if axis.startswith(("xaxis", "yaxis"))]
            named = [figure.layout[a].title.text or figure.layout[a].type for a in axes]
            assert any(named)
        else:
            assert is_empty(figure).endswith(".")


def test_convergence_draws_what_the_table_holds(run):
    lines = traces(figures.convergence(run.rounds))
    assert set(lines) == {*DOMAINS, "overall", "validation (own specimens)", "training loss"}
    assert list(lines["overall"].y) == run.rounds["accuracy"].to_pylist()
    assert list(lines["materials"].y) == run.rounds["accuracy/materials"].to_pylist()


def test_rounds_without_an_evaluation_are_left_out(tmp_path):
    store = RunStore(tmp_path)
    for number in (1, 2, 3):
        row = round_row(number)
        hidden = {"accuracy": None, "domain_accuracy": {}} if number == 2 else {}
        store.append_round(replace(row, **hidden), [])
    lines = traces(figures.convergence(read_rounds(tmp_path)))
    assert list(lines["overall"].x) == [1, 3]
    assert list(lines["training loss"].x) == [1, 2, 3]


def test_a_run_never_evaluated_says_so(tmp_path):
    store = RunStore(tmp_path)
    hidden = {"accuracy": None, "domain_accuracy": {}, "validation_accuracy": None}
    store.append_round(replace(round_row(1), **hidden), [])
    figure = figures.convergence(read_rounds(tmp_path))
    assert "Not evaluated" in figure.layout.annotations[0].text
    assert set(traces(figure)) == {"training loss"}


def test_a_paradigm_without_rounds_gets_messages(alone):
    for figure in (
        figures.convergence(alone.rounds),
        figures.bytes_per_round(alone.rounds, alone.institutions, alone.summary),
        figures.seconds_per_round(alone.rounds),
    ):
        assert is_empty(figure) == "This paradigm has no communication rounds."


def test_bytes_are_drawn_in_their_unit_with_the_fp32_reference(private):
    first, second = 0, 1
    figure = figures.bytes_per_round(private.rounds, private.institutions, private.summary)
    up = [trace for trace in figure.data if trace.name == "uplink (modint)"]
    assert list(up[first].y) == [pytest.approx(1.425)] * 4
    assert up[second].y[-1] == pytest.approx(4 * 1.425)
    assert traces(figure)["uplink as fp32"].y[-1] == pytest.approx(4 * 5.7)
    assert figure.layout.yaxis.title.text == "MB a round"


def test_a_run_in_fp32_needs_no_fp32_reference(run):
    names = set(traces(figures.bytes_per_round(run.rounds, run.institutions, run.summary)))
    assert names == {"uplink (fp32)", "downlink"}


def test_a_run_that_sends_nothing_says_so(tmp_path):
    store = RunStore(tmp_path)
    store.append_round(replace(round_row(1), uplink_bytes=0, downlink_bytes=0), [])
    nobody = INSTITUTIONS.empty_table()
    figure = figures.bytes_per_round(read_rounds(tmp_path), nobody, SUMMARY)
    assert is_empty(figure) == "Nothing was sent in this run."


def test_seconds_add_up_to_the_round(private):
    figure = figures.seconds_per_round(private.rounds)
    bars = [trace for trace in figure.data if trace.type == "bar"]
    assert sum(bar.y[0] for bar in bars) == pytest.approx(1.3)
    assert traces(figure)["simulated network"].y[0] == 6.25


def test_without_links_there_is_no_virtual_clock(run):
    assert "simulated network" not in traces(figures.seconds_per_round(run.rounds))


def test_epsilon_is_drawn_only_where_there_is_one(run, private):
    message = is_empty(figures.epsilon_by_round(run.rounds, run.institutions, run.summary))
    assert "not private" in message
    figure = figures.epsilon_by_round(private.rounds, private.institutions, private.summary)
    lines = traces(figure)
    assert list(lines["largest of an institution"].y) == private.rounds["epsilon"].to_pylist()
    assert lines["smallest of an institution"].y[3] == pytest.approx(0.26)
    assert "1e-05" in figure.layout.yaxis.title.text


def test_domains_show_accuracy_beside_macro_f1():
    bars = traces(figures.accuracy_by_domain(SUMMARY))
    assert list(bars["accuracy"].y) == ["overall", *DOMAINS]
    assert bars["accuracy"].x[0] == 0.9
    assert bars["macro-F1"].x[0] == pytest.approx(0.887)


def test_institutions_are_coloured_by_domain_and_tell_their_modalities():
    figure = figures.accuracy_by_institution(EVALUATION)
    bars = traces(figure)
    assert {name: len(bar.x) for name, bar in bars.items()} == {
        "medical": 5,
        "materials": 6,
        "environmental": 4,
    }
    assert len({bar.marker.color for bar in bars.values()}) == 3
    assert "electron microscopy" in bars["materials"].y[0]
    assert bars["medical"].customdata[1] == "med-02 (ct, mri)"


def test_a_domain_keeps_its_colour_from_chart_to_chart():
    institutions = traces(figures.accuracy_by_institution(EVALUATION))
    for domain in DOMAINS:
        (views,) = figures.accuracy_by_view(domain, EVALUATION).data
        assert views.marker.color == institutions[domain].marker.color


def test_very_many_institutions_become_a_distribution():
    tree = evaluation()
    tree["institutions"] = {
        f"site-{i}": {"domain": "medical", "modalities": ["ct"], "accuracy": i / 1500}
        for i in range(1500)
    }
    (box,) = figures.accuracy_by_institution(Evaluation.model_validate(tree)).data
    assert box.type == "box"
    assert len(box.y) == 1500


def test_views_are_sorted_from_one_modality_to_all():
    (bar,) = figures.accuracy_by_view("medical", EVALUATION).data
    assert len(bar.y) == 7
    assert [row[0].count("+") for row in bar.customdata] == [0, 0, 0, 1, 1, 1, 2]


def test_attention_leaves_a_gap_where_a_modality_was_not_shown():
    (heat,) = figures.attention("medical", EVALUATION).data
    first = list(heat.z[0])
    assert first == [pytest.approx(1.0), None, None]
    assert sum(heat.z[-1]) == pytest.approx(1.0)


def test_fusion_without_attention_says_so():
    plain = Evaluation.model_validate(evaluation(attention=False))
    assert "no attention" in is_empty(figures.attention("medical", plain))


def test_confusion_colours_shares_and_shows_counts():
    (heat,) = figures.confusion_matrix("materials", EVALUATION).data
    counts = EVALUATION.domains["materials"].views[-1].confusion
    assert [list(row) for row in heat.text] == counts
    assert all(sum(row) == pytest.approx(1.0) for row in heat.z)


def test_a_class_never_seen_in_the_test_set_has_an_empty_row():
    tree = evaluation(domains=("medical",))
    tree["domains"]["medical"]["views"][-1]["confusion"][2] = [0] * 6
    (heat,) = figures.confusion_matrix("medical", Evaluation.model_validate(tree)).data
    assert list(heat.z[2]) == [0.0] * 6


def test_numbers_as_class_names_stay_names():
    tree = evaluation(domains=("medical",))
    tree["domains"]["medical"]["classes"] = [str(2000 + i) for i in range(6)]
    layout = figures.confusion_matrix("medical", Evaluation.model_validate(tree)).layout
    assert (layout.xaxis.type, layout.yaxis.type) == ("category", "category")


def test_a_domain_that_was_not_evaluated_gets_messages():
    for draw in (figures.accuracy_by_view, figures.confusion_matrix):
        assert is_empty(draw("medical", Evaluation())) == "Not evaluated in this run."
    assert is_empty(figures.accuracy_by_institution(Evaluation())) == "Not evaluated in this run."


def test_markup_in_a_users_name_is_shown_not_obeyed():
    tree = evaluation(domains=("medical",))
    tree["domains"]["medical"]["classes"][0] = "<a href='x'>grade</a>"
    (heat,) = figures.confusion_matrix("medical", Evaluation.model_validate(tree)).data
    assert heat.x[0].startswith("&lt;a")


def test_marks_stay_apart_beyond_the_palette():
    given = marks(str(i) for i in range(20))
    assert len(set(given.values())) == 20
    assert given["0"].color == OKABE_ITO[0]


def test_paradigms_side_by_side_and_over_rounds(run):
    comparison = {
        "centralized": Summary.model_validate(summary("centralized", rounds=0, level=0.93)),
        "fedfuse_nonprivate": SUMMARY,
    }
    bars = traces(figures.accuracy_by_paradigm(comparison))
    assert bars["centralized"].x[0] == 0.93
    figure = figures.convergence_by_paradigm({"fedfuse_nonprivate": run.rounds}, comparison)
    lines = traces(figure)
    assert list(lines["centralized (final)"].y) == [0.93, 0.93]
    assert list(lines["centralized (final)"].x) == [1, 4]
    assert list(lines["fedfuse_nonprivate"].y) == run.rounds["accuracy"].to_pylist()
    assert "round by round" in is_empty(figures.convergence_by_paradigm({}, comparison))


def test_rows_of_a_single_round_are_drawn_as_points(tmp_path):
    store = RunStore(tmp_path)
    store.append_round(round_row(1), institution_rows(1))
    lines = traces(figures.convergence(read_rounds(tmp_path)))
    assert "markers" in lines["validation (own specimens)"].mode
