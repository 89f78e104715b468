"""One trial in this process: step by step, given up, continued, after another one."""

from __future__ import annotations

import pytest

from fedfuse_ray.federation.rounds.serial import SerialExecutor
from fedfuse_ray.report.store import RunStore
from fedfuse_ray.runs.running import run
from fedfuse_ray.studies.sweeping.on_ray.reuse import ReusingExecutor
from fedfuse_ray.studies.sweeping.store import (
    DONE,
    EXPERIMENT,
    FAILED,
    STOPPED,
    Outcome,
    lay_out,
    read_row,
)
from fedfuse_ray.studies.sweeping.trial import Step, Trial
from tests.support.federations import rows_of, scores_of, tiny


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same federation, run by itself."""
    folder = tmp_path_factory.mktemp("alone")
    run(tiny(paradigm="fedfuse"), folder)
    return folder


def laid_out(folder, *settings, paradigm="fedfuse"):
    lay_out(folder, 0, {"seed": 0}, tiny(*settings, paradigm=paradigm))
    return folder


def finish(trial):
    steps = []
    while isinstance(result := trial.step(), Step):
        steps.append(result)
    return steps, result


def test_it_goes_on_by_a_round_a_step(tmp_path, alone):
    trial = Trial(laid_out(tmp_path), lambda _: SerialExecutor())
    steps, outcome = finish(trial)
    assert [(s.round, s.total) for s in steps] == [(1, 3), (2, 3), (3, 3)]
    assert outcome.status == DONE
    assert scores_of(tmp_path) == scores_of(alone)
    row = read_row(tmp_path)
    assert row.accuracy == scores_of(alone)["accuracy"]["overall"]
    assert set(row.domains) == {"medical", "materials"}
    assert row.seconds > 0


def test_given_up_it_stops_at_that_round_and_counts_what_it_spent(tmp_path):
    trial = Trial(laid_out(tmp_path), lambda _: SerialExecutor())
    assert trial.step().round == 1
    assert trial.step().round == 2
    trial.stop()
    row = read_row(tmp_path)
    assert (row.status, row.rounds) == (STOPPED, 2)
    assert 0 < row.epsilon < 1
    assert row.uplink_bytes > 0
    # A search that begins anew hears of the same rounds, and nothing is run.
    steps, outcome = finish(Trial(tmp_path, lambda _: SerialExecutor()))
    assert [s.round for s in steps] == [1, 2]
    assert outcome.status == STOPPED


def test_never_begun_it_leaves_no_outcome(tmp_path):
    trial = Trial(laid_out(tmp_path), lambda _: SerialExecutor())
    trial.stop()
    assert read_row(tmp_path).status == "missing"


def test_cut_off_it_is_continued_to_the_same_result(tmp_path, alone):
    trial = Trial(laid_out(tmp_path), lambda _: SerialExecutor())
    trial.step()
    trial.step()
    trial.stop()
    (tmp_path / "outcome.json").unlink()
    steps, outcome = finish(Trial(tmp_path, lambda _: SerialExecutor()))
    assert [s.round for s in steps] == [2, 3]
    assert outcome.status == DONE
    assert scores_of(tmp_path) == scores_of(alone)
    for table in ("rounds.parquet", "institutions.parquet"):
        assert rows_of(tmp_path, table) == rows_of(alone, table)


def test_a_failure_is_an_outcome_and_is_tried_again(tmp_path, alone):
    folder = laid_out(tmp_path)
    config = (folder / EXPERIMENT).read_text()
    (folder / EXPERIMENT).write_text(config.replace("rounds: 3", "rounds: -3"))
    _, outcome = finish(Trial(folder, lambda _: SerialExecutor()))
    assert isinstance(outcome, Outcome)
    assert outcome.status == FAILED
    assert "training.rounds" in outcome.error
    assert read_row(folder).error == outcome.error
    (folder / EXPERIMENT).write_text(config)
    assert finish(Trial(folder, lambda _: SerialExecutor()))[1].status == DONE
    assert scores_of(folder) == scores_of(alone)


def test_a_trial_that_was_killed_while_it_began_begins_again(tmp_path, alone):
    folder = laid_out(tmp_path)
    # A run takes the settings away first and writes them last; here it came to its tables.
    RunStore(folder).start("a: 1\n", {})
    (folder / "config.yaml").unlink()
    assert finish(Trial(folder, lambda _: SerialExecutor()))[1].status == DONE
    assert scores_of(folder) == scores_of(alone)


def test_the_next_trial_takes_over_specimens_and_nothing_else(tmp_path, alone):
    executor = ReusingExecutor()
    others = ("privacy.clip_norm=0.1", "privacy.target_epsilon=50", "training.rounds=2")
    finish(Trial(laid_out(tmp_path / "first", *others), lambda _: executor))
    assert executor.reused == 0
    finish(Trial(laid_out(tmp_path / "second"), lambda _: executor))
    # Train and test of three institutions; nobody looks at a private run's validation.
    assert executor.reused == 2 * 3
    assert scores_of(tmp_path / "second") == scores_of(alone)
    assert scores_of(tmp_path / "first") != scores_of(alone)


@pytest.mark.parametrize(
    "other",
    [
        ("seed=1",),
        ("data.skew.feature=0.9",),
        ("model.encoder.width=8",),
        ("model.encoder.trainable=true", "training.rounds=1"),
    ],
    ids=lambda settings: settings[0],
)
def test_other_specimens_or_encoders_are_made_anew(tmp_path, alone, other):
    executor = ReusingExecutor()
    finish(Trial(laid_out(tmp_path / "first", *other), lambda _: executor))
    finish(Trial(laid_out(tmp_path / "second"), lambda _: executor))
    assert executor.reused == 0
    assert scores_of(tmp_path / "second") == scores_of(alone)
