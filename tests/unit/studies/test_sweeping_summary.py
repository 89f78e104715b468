"""The table of trials, the Pareto front, the best, and the page."""

from __future__ import annotations

import json
import re

import pyarrow as pa
import pytest

from fedfuse_ray.errors import InputError
from fedfuse_ray.studies.sweeping.loading import validate_sweep
from fedfuse_ray.studies.sweeping.points import expand
from fedfuse_ray.studies.sweeping.report import sweep_page
from fedfuse_ray.studies.sweeping.store import (
    DONE,
    FAILED,
    MISSING,
    STOPPED,
    Outcome,
    Row,
    SweepStore,
    table_of,
    write_outcome,
)
from fedfuse_ray.studies.sweeping.summary import Selection, best, pareto, summarise

ALL = ("accuracy", "epsilon", "bytes")
SWEEP = validate_sweep({"base": "tiny", "space": {"training.rounds": [1, 2], "seed": [0]}})


def row(index, accuracy, epsilon, uplink, status=DONE, **values):
    return Row(
        index=index,
        trial=f"{index:02d}-<x>",
        values=values or {"training.rounds": index},
        status=status,
        accuracy=accuracy,
        domains={"medical": accuracy},
        epsilon=epsilon,
        uplink_bytes=uplink,
        started=1.0,
        ended=3.0,
    )


ROWS = [
    row(0, 0.9, None, 100.0),
    row(1, 0.8, 1.0, 100.0),
    row(2, 0.8, 1.0, 50.0),
    row(3, 0.7, 1.0, 60.0),
    row(4, 0.99, 0.1, 1.0, STOPPED),
    row(5, None, None, None, FAILED),
]


def test_the_front_holds_what_nothing_beats():
    assert [r.index for r in pareto(ROWS, ALL)] == [0, 2]
    assert [r.index for r in pareto(ROWS, ("accuracy",))] == [0]
    assert [r.index for r in pareto(ROWS, ("epsilon", "accuracy"))] == [0, 1, 2]
    assert pareto([], ALL) == []


def test_equal_trials_are_both_on_the_front():
    twins = [row(0, 0.8, 1.0, 5.0), row(1, 0.8, 1.0, 5.0)]
    assert pareto(twins, ALL) == twins
    assert best(twins, ALL) == twins[0]


def test_the_first_objective_names_the_best_and_the_next_break_ties():
    assert best(ROWS, ALL) == ROWS[0]
    assert best(ROWS[1:], ALL) == ROWS[2]
    assert best(ROWS, ("bytes",)) == ROWS[2]
    assert best(ROWS[4:], ALL) is None


def test_the_table_keeps_kinds_of_values():
    rows = [
        row(0, 0.5, 1.0, 1.0, a=1, b=0.5, c="x", d=True, e={"k": 1}),
        row(1, 0.5, None, 1.0, a=2, b=1, c=None, d=False, e="y"),
    ]
    table = table_of(rows)
    kinds = {name: table.schema.field(name).type for name in "abcde"}
    assert kinds == {
        "a": pa.int64(),
        "b": pa.float64(),
        "c": pa.string(),
        "d": pa.bool_(),
        "e": pa.string(),
    }
    assert table["e"].to_pylist() == ['{"k": 1}', "y"]
    assert table["accuracy/medical"].to_pylist() == [0.5, 0.5]
    assert table["epsilon"].to_pylist() == [1.0, None]
    assert table["seconds"].to_pylist() == [2.0, 2.0]


def test_a_folder_is_laid_out_and_knows_what_is_missing(tmp_path):
    store = SweepStore(tmp_path / "sweep")
    store.start(SWEEP, expand(SWEEP))
    names = store.names()
    assert names == ["00-rounds-1-seed-0", "01-rounds-2-seed-0"]
    assert store.read() == SWEEP
    assert store.values(names[1]) == {"training.rounds": 2, "seed": 0}
    assert [r.status for r in store.rows()] == [MISSING, MISSING]
    write_outcome(store.trials / names[0], Outcome(FAILED, 1.0, 2.0, "Boom"))
    write_outcome(store.trials / names[1], Outcome(STOPPED, 1.0, 2.0))
    assert store.missing() == [names[0]]
    assert store.rows()[0].error == "Boom"


def test_a_new_sweep_replaces_an_old_one_but_nothing_else(tmp_path):
    store = SweepStore(tmp_path)
    store.start(SWEEP, expand(SWEEP))
    store.start(SWEEP, expand(SWEEP)[:1])
    assert len(store.names()) == 1
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="holds other files"):
        SweepStore(other).start(SWEEP, [])
    assert (other / "thesis.tex").exists()
    with pytest.raises(InputError, match="no sweep was started"):
        SweepStore(other).read()


def test_summary_and_page_say_the_same():
    selection = Selection(None, "Not charged: no trial is private.")
    told = json.loads(json.dumps(summarise(SWEEP, ROWS, selection, 1.0), allow_nan=False))
    assert told["best"]["trial"] == ROWS[0].trial
    assert [entry["trial"] for entry in told["pareto"]] == ["00-<x>", "02-<x>"]
    assert told["trials"] == {"done": 4, "stopped": 1, "failed": 1}
    assert told["selection"] == {"charged_at_all": False, "text": selection.text}
    page = sweep_page(SWEEP, ROWS, selection)
    assert selection.text in page
    assert 'href="trials/02-%3Cx%3E/report.html"' in page
    assert 'href="trials/05' not in page
    assert "<x>" not in page
    assert not re.search(r"<(script|img|link)[^>]+(src|href)=.https?:", page)
