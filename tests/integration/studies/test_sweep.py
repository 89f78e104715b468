"""Sweeps on Ray: trials given up early, processes that die, searches that learn."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from fedfuse_ray.config import load
from fedfuse_ray.errors import InputError, ResourceError
from fedfuse_ray.runs.verifying import runs_in, verify_run
from fedfuse_ray.studies.sweeping.loading import validate_sweep
from fedfuse_ray.studies.sweeping.output import write_folder
from fedfuse_ray.studies.sweeping.points import expand
from fedfuse_ray.studies.sweeping.store import DONE, EXPERIMENT, STOPPED, SweepStore

pytestmark = pytest.mark.ray


def begun(folder, **more):
    tree = {
        "base": "tiny",
        "paradigm": "fedfuse",
        "settings": {"training.rounds": 8},
        "space": {"privacy.clip_norm": [0.25, 0.5]},
        **more,
    }
    sweep, store = validate_sweep(tree), SweepStore(folder)
    store.start(sweep, expand(sweep))
    return sweep, store


def ran(sweep, store, tell=lambda told: None):
    from fedfuse_ray.studies.sweeping.on_ray.trials import run_trials

    names = store.names() if sweep.search.kind in ("asha", "optuna") else store.missing()
    run_trials(sweep, store, names, tell)
    return store.rows()


def test_asha_gives_the_worse_up_and_resumes_with_what_it_learnt(tmp_path, ray_address):
    search = {"kind": "asha", "trials": 6, "grace_rounds": 1, "reduction_factor": 2}
    space = {"privacy.target_epsilon": {"choice": [0.1, 100]}}
    sweep, store = begun(tmp_path, search=search, space=space)
    rows = ran(sweep, store)
    assert {row.status for row in rows} == {DONE, STOPPED}
    checks = [c for path in runs_in(store.folder).values() for c in verify_run(path)]
    assert [check for check in checks if check.passed is False] == []
    for row in rows:
        assert row.rounds == 8 if row.status == DONE else row.rounds < 8
        assert (store.trials / row.trial / "report.html").is_file() == (row.status == DONE)
    _, selection = write_folder(sweep, store.folder, 1.0)
    assert selection.cost.runs == 6
    assert "odometer" in selection.text
    # One trial is lost with its outcome; the others end again at once, as they did.
    lost = next(row for row in rows if row.status == DONE)
    (store.trials / lost.trial / "outcome.json").unlink()
    again = {row.trial: row for row in ran(sweep, store)}
    for row in rows:
        if row.trial != lost.trial:
            assert again[row.trial] == row
    assert again[lost.trial].status in (DONE, STOPPED)


def test_a_process_that_dies_is_replaced_and_its_trial_goes_on(tmp_path, ray_address):
    sweep, store = begun(tmp_path / "whole")
    expected = {row.trial: row.weights_sha256 for row in ran(sweep, store)}
    sweep, store = begun(tmp_path / "struck")
    victim = []

    def strike():
        deadline = time.monotonic() + 60
        while not victim and time.monotonic() < deadline:
            for path in store.trials.glob("*/checkpoints/round-000002.npz"):
                lock = os.stat(path.parent.parent / ".lock").st_ino
                for line in Path("/proc/locks").read_text().splitlines():
                    fields = line.split()
                    if fields[5].endswith(f":{lock}"):
                        victim.append(int(fields[4]))
                        os.kill(victim[0], signal.SIGKILL)
                        return
            time.sleep(0.005)

    striker = threading.Thread(target=strike)
    striker.start()
    rows = ran(sweep, store)
    striker.join()
    assert victim
    assert {row.trial: row.weights_sha256 for row in rows} == expected


class Diary:
    """A tracker as Ray's integrations are."""

    def __init__(self):
        self.ends, self.rounds = {}, {}

    def setup(self):
        pass

    def log_trial_start(self, trial):
        self.rounds[str(trial)] = {}

    def log_trial_result(self, iteration, trial, result):
        self.rounds[str(trial)][result["round"]] = result

    def log_trial_end(self, trial, failed=False):
        self.ends[str(trial)] = failed

    def on_experiment_end(self, trials):
        pass


def test_a_broken_trial_leaves_the_others_alone(tmp_path, ray_address, monkeypatch):
    from fedfuse_ray.studies.sweeping.on_ray import tracking as on_ray_tracking

    diary = Diary()
    monkeypatch.setitem(on_ray_tracking.TRACKERS, "mlflow", lambda asked, store: diary)
    monkeypatch.setattr(on_ray_tracking, "keep_quiet", lambda tracking: None)
    sweep, store = begun(tmp_path, tracking={"mlflow": {}})
    first = store.trials / store.names()[0]
    config = (first / EXPERIMENT).read_text()
    (first / EXPERIMENT).write_text(config.replace("rounds: 8", "rounds: -8"))
    ended = []
    rows = ran(sweep, store, lambda told: ended.append(told.name) if told.ended else None)
    assert [row.status for row in rows] == ["failed", "done"]
    assert "training.rounds" in rows[0].error
    assert set(ended) == set(store.names())
    assert store.missing() == [rows[0].trial]
    assert diary.ends == {rows[0].trial: True, rows[1].trial: False}
    told = diary.rounds[rows[1].trial]
    assert list(told) == list(range(1, 9))
    assert (
        told[8]["uplink_bytes"]
        == rows[1].uplink_bytes
        == pytest.approx(8 * told[1]["uplink_bytes"], rel=0.05)
    )
    assert told[8]["epsilon"] == rows[1].epsilon > told[1]["epsilon"]
    assert told[8]["accuracy/medical"] == rows[1].domains["medical"]


def test_a_trial_that_fits_nowhere_is_refused(tmp_path, ray_address):
    sweep, store = begun(tmp_path, cpus_per_trial=64)
    with pytest.raises(ResourceError, match="no node has"):
        ran(sweep, store)


def test_a_federation_of_actors_runs_inside_its_trial_as_it_does_in_one_process(
    tmp_path, ray_address
):
    space = {"privacy.clip_norm": [0.5]}
    settings = {"training.rounds": 2, "execution.institutions_per_actor": 2}
    serial = ran(*begun(tmp_path / "serial", space=space, settings=settings))
    actors = ran(*begun(tmp_path / "ray", space=space, settings=settings, executor="ray"))
    assert actors[0].status == DONE, actors[0].error
    assert actors[0].weights_sha256 == serial[0].weights_sha256
    assert load(tmp_path / "ray" / "trials" / actors[0].trial / "config.yaml").execution == (
        load(tmp_path / "serial" / "trials" / serial[0].trial / "config.yaml").execution.model_copy(
            update={"executor": "ray"}
        )
    )


def test_actors_that_ask_for_different_room_are_swept_apart(tmp_path, ray_address):
    space = {"execution.institutions_per_actor": [2, 3]}
    sweep, store = begun(tmp_path, space=space, executor="ray")
    with pytest.raises(InputError, match="sweep them apart"):
        ran(sweep, store)


def test_optuna_proposes_and_finds_its_earlier_trials_again(tmp_path, ray_address):
    pytest.importorskip("optuna")
    space = {"privacy.clip_norm": {"loguniform": [0.1, 1]}, "compression.codec": ["fp32", "modint"]}
    sweep, store = begun(tmp_path, space=space, search={"kind": "optuna", "trials": 3})
    rows = ran(sweep, store)
    assert [row.status for row in rows] == [DONE] * 3
    more = json.loads(sweep.model_dump_json()) | {"search": {"kind": "optuna", "trials": 4}}
    again = ran(validate_sweep(more), store)
    assert again[:3] == rows
    assert len(again) == 4


def test_without_optuna_its_search_is_refused(monkeypatch):
    import sys

    from fedfuse_ray.studies.sweeping.tracking import check_extras

    monkeypatch.setitem(sys.modules, "optuna", None)
    search = {"kind": "optuna", "trials": 3}
    sweep = validate_sweep({"base": "tiny", "space": {"seed": [0, 1]}, "search": search})
    with pytest.raises(InputError, match=r"fedfuse-ray\[optuna\]"):
        check_extras(sweep)
