"""Trackers: what is asked for, what is refused, and what a tracker gets to see. No Ray instance."""

from __future__ import annotations

import importlib.util
import os
import sys
from types import SimpleNamespace

import pytest

from fedfuse_ray.errors import InputError
from fedfuse_ray.studies.sweeping.loading import dump_sweep, load_sweep, validate_sweep
from fedfuse_ray.studies.sweeping.points import expand
from fedfuse_ray.studies.sweeping.store import FAILED, SweepStore
from fedfuse_ray.studies.sweeping.tracking import check_extras, keep_quiet
from fedfuse_ray.sweep import main

TREE = {"base": "tiny", "space": {"privacy.clip_norm": [0.5, 1.0]}}


def tracked(**tracking):
    return validate_sweep({**TREE, "tracking": tracking})


def test_trackers_are_off_and_when_asked_for_stay_at_home(tmp_path):
    assert validate_sweep(TREE).tracking.mlflow is None
    asked = tracked(mlflow={}, wandb={}).tracking
    assert asked.mlflow.address(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    assert asked.wandb.mode == "offline"
    assert tracked(mlflow={"uri": "http://host"}).tracking.mlflow.address(tmp_path) == "http://host"
    with pytest.raises(InputError, match=r"tracking.wandb.mode"):
        tracked(wandb={"mode": "loud"})


def test_a_sweep_file_and_the_command_line_name_trackers(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text("base: tiny\nspace: {seed: [0, 1]}\ntracking: {mlflow: {experiment: one}}\n")
    given = ["tracking.mlflow.experiment=two", "tracking.mlflow.tags.who=me"]
    sweep = load_sweep(path, [*given, "tracking.wandb={}"])
    assert sweep.tracking.mlflow.experiment == "two"
    assert sweep.tracking.mlflow.tags == {"who": "me"}
    path.write_text(dump_sweep(sweep))
    assert load_sweep(path) == sweep
    with pytest.raises(InputError, match="must be a group"):
        load_sweep(path, ["tracking.mlflow.experiment.name=x"])


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_extra_is_refused_before_anything_is_laid_out(
    name, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, name, None)
    path = tmp_path / "sweep.yaml"
    path.write_text("base: tiny\nspace: {seed: [0, 1]}\n")
    given = [str(path), "--set", f"tracking.{name}={{}}", "--out", str(tmp_path / "out")]
    assert main(given) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: tracking.{name}: ")
    assert f"fedfuse-ray[{name}]" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_without_trackers_no_extra_is_needed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_extras(validate_sweep(TREE))


def test_the_trackers_own_telemetry_is_off(monkeypatch):
    for name in ("MLFLOW_DISABLE_TELEMETRY", "WANDB_ERROR_REPORTING", "WANDB_MODE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    keep_quiet(tracked(wandb={}).tracking)
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"
    assert os.environ["WANDB_MODE"] == "offline"


class Recorder:
    """What Ray's integrations offer."""

    def __init__(self, fails=False):
        self.told, self.fails = [], fails

    def log_trial_start(self, trial):
        self.told.append(("start", str(trial), trial.config))

    def log_trial_result(self, iteration, trial, result):
        if self.fails:
            raise ConnectionError("the server is gone")
        self.told.append(("result", str(trial), result))

    def log_trial_end(self, trial, failed=False):
        self.told.append(("end", str(trial), failed))

    def on_experiment_end(self, trials):
        self.told.append(("over",))


def reported(tmp_path, recorder, known=()):
    from fedfuse_ray.studies.sweeping.on_ray.tracking import Reporter

    sweep, store = validate_sweep(TREE), SweepStore(tmp_path / "mine")
    store.start(sweep, expand(sweep))

    def naming(config):
        return config["name"], store.values(config["name"])

    reporter = Reporter(recorder, store, naming, known)
    for index, name in enumerate(store.names()):
        trial = SimpleNamespace(trial_id=str(index), config={"name": name}, last_result={})
        reporter.on_trial_start(0, [], trial)
        metrics = {"accuracy": 0.5, "accuracy/medical": 0.4, "epsilon": 1.0, "uplink_bytes": 7.0}
        result = {"round": 2, "hostname": "secret", "config": trial.config, "metrics": metrics}
        reporter.on_trial_result(1, [], trial, result)
        trial.last_result = {"status": FAILED if index else "done"}
        reporter.on_trial_complete(1, [], trial)
    reporter.on_experiment_end([])
    return store.names()


def test_a_tracker_sees_settings_and_metrics_and_nothing_of_the_machine(tmp_path):
    recorder = Recorder()
    first, second = reported(tmp_path, recorder)
    metrics = {"accuracy": 0.5, "accuracy/medical": 0.4, "epsilon": 1.0, "uplink_bytes": 7.0}
    assert recorder.told == [
        ("start", first, {"privacy.clip_norm": 0.5}),
        ("result", first, {"round": 2, "training_iteration": 2, **metrics}),
        ("end", first, False),
        ("start", second, {"privacy.clip_norm": 1.0}),
        ("result", second, {"round": 2, "training_iteration": 2, **metrics}),
        ("end", second, True),
        ("over",),
    ]


def test_trials_of_an_earlier_run_are_not_told_twice(tmp_path):
    recorder = Recorder()
    reported(tmp_path, recorder, known={"00-clip_norm-0.5"})
    assert {entry[1] for entry in recorder.told[:-1]} == {"01-clip_norm-1"}


def test_a_tracker_that_fails_is_left_alone(tmp_path, caplog):
    recorder = Recorder(fails=True)
    first, _ = reported(tmp_path, recorder)
    assert recorder.told == [("start", first, {"privacy.clip_norm": 0.5})]
    assert "the server is gone" in caplog.text


def test_a_tracker_that_cannot_begin_is_bad_input(tmp_path, monkeypatch):
    from fedfuse_ray.studies.sweeping.on_ray import tracking as on_ray_tracking

    def broken(asked, store):
        raise ValueError("no such\nserver")

    monkeypatch.setitem(on_ray_tracking.TRACKERS, "mlflow", broken)
    monkeypatch.setattr(on_ray_tracking, "keep_quiet", lambda tracking: None)
    store = SweepStore(tmp_path)
    with pytest.raises(InputError, match=r"tracking.mlflow.uri.*no such server"):
        on_ray_tracking.reporters(tracked(mlflow={"uri": "x://"}), store, lambda c: ("", {}), ())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's, of its own libraries
def test_mlflow_keeps_the_runs_in_the_sweeps_folder(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    from fedfuse_ray.studies.sweeping.on_ray import tracking as on_ray_tracking

    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    store = SweepStore(tmp_path / "mine")
    store.trials.mkdir(parents=True)
    (reporter,) = on_ray_tracking.reporters(tracked(mlflow={}), store, lambda c: ("", {}), ())
    reported(tmp_path, reporter._tracker)
    client = mlflow.MlflowClient(f"sqlite:///{store.folder}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "mine"]
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert {name: run.info.status for name, run in runs.items()} == {
        "00-clip_norm-0.5": "FINISHED",
        "01-clip_norm-1": "FAILED",
    }
    run = runs["00-clip_norm-0.5"]
    assert run.data.params == {"privacy.clip_norm": "0.5"}
    assert run.data.metrics["accuracy/medical"] == 0.4
