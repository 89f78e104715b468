"""Processes that die, clusters that are too small, institutions whose data is broken."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest
import ray

from actors.calls import RayCalls
from actors.ray_executor import RayExecutor
from fedfuse_ray.errors import DeadlineError, InstitutionError, ResourceError
from fedfuse_ray.report.store import read_refused
from fedfuse_ray.runs.running import Silent, resume, run
from tests.support.federations import dataset_of, rows_of, scores_of, tiny
from tests.support.processes.clusters import actors

pytestmark = pytest.mark.ray
ROUNDS = "training.rounds=4"


def pid_of(kind):
    """Return the process of the parameter server, or of a host of institutions."""
    named = actors()
    hosts = sorted(set(named) - {"parameter-server"})
    name = "parameter-server" if kind == "server" else hosts[-1]
    return ray.get(named[name].ready.remote())


class KillAfter(Silent):
    """Kills a process right after a round was told, before it is checkpointed."""

    def __init__(self, kind, done):
        self.kind, self.done, self.killed = kind, done, 0

    def advanced(self, done, total, what, accuracy):
        if done == self.done:
            os.kill(pid_of(self.kind), signal.SIGKILL)
            self.killed += 1


class KillDuring(Silent):
    """Kills a process while the next round trains."""

    def __init__(self, kind, done):
        self.kind, self.done, self.killed = kind, done, 0

    def advanced(self, done, total, what, accuracy):
        if done == self.done:
            threading.Timer(0.15, self._kill, [pid_of(self.kind)]).start()

    def _kill(self, pid):
        os.kill(pid, signal.SIGKILL)
        self.killed += 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the folder of the undisturbed run, in this process, by strategy."""
    made = {}

    def folder_of(*settings):
        if settings not in made:
            made[settings] = tmp_path_factory.mktemp("whole")
            run(tiny(*settings), made[settings])
        return made[settings]

    return folder_of


@pytest.mark.parametrize("kind", ["host", "server"])
def test_a_process_killed_between_rounds_changes_nothing(ray_address, whole, tmp_path, kind):
    settings = ("strategy.kind=scaffold", ROUNDS)
    killer = KillAfter(kind, 2)
    run(tiny(*settings, "execution.executor=ray"), tmp_path, progress=killer)
    assert killer.killed == 1
    assert scores_of(tmp_path) == scores_of(whole(*settings))
    assert rows_of(tmp_path, "institutions.parquet") == rows_of(
        whole(*settings), "institutions.parquet"
    )


@pytest.mark.parametrize("kind", ["host", "server"])
def test_a_process_killed_while_a_round_trains_changes_nothing(ray_address, whole, tmp_path, kind):
    # Rounds long enough that the kill falls into one.
    settings = ("strategy.kind=scaffold", "training.rounds=3", "training.local_epochs=30")
    killer = KillDuring(kind, 1)
    run(tiny(*settings, "execution.executor=ray"), tmp_path, progress=killer)
    assert killer.killed == 1
    assert scores_of(tmp_path) == scores_of(whole(*settings))


def test_a_process_killed_while_participants_train_apart_changes_nothing(ray_address, tmp_path):
    settings = ("training.max_epochs=30",)
    run(tiny(*settings, paradigm="isolated"), tmp_path / "whole")
    experiment = tiny(*settings, "execution.executor=ray", paradigm="isolated")

    killer = KillAfter("host", 1)
    run(experiment, tmp_path / "killed", progress=killer)
    assert killer.killed == 1
    assert scores_of(tmp_path / "killed") == scores_of(tmp_path / "whole")


def test_what_the_cluster_does_not_have_is_said_at_once(ray_address, tmp_path):
    for setting, remedy in (
        ("execution.num_gpus_per_institution=0.5", "execution.num_gpus_per_institution=0"),
        ("institutions.med-02.hardware.num_gpus=1", "institutions.med-02.hardware.num_gpus=0"),
    ):
        began = time.monotonic()
        with pytest.raises(ResourceError, match="GPUs are short") as caught:
            run(tiny("execution.executor=ray", setting), tmp_path)
        assert time.monotonic() - began < 10
        assert f"set {remedy}, or add nodes: 1x(2 CPU, 1 GPU)" in str(caught.value)
    assert actors() == {}


def test_a_cluster_that_others_hold_is_not_waited_for_for_ever(ray_address, tmp_path):
    @ray.remote(num_cpus=2)
    class Neighbour:
        def ready(self):
            return True

    neighbour = Neighbour.remote()
    ray.get(neighbour.ready.remote())
    began = time.monotonic()
    try:
        with pytest.raises(ResourceError, match="others may hold the cluster"):
            run(tiny("execution.executor=ray", "execution.startup_seconds=3"), tmp_path)
    finally:
        ray.kill(neighbour)
    assert time.monotonic() - began < 20
    assert actors() == {}


def test_a_round_that_takes_too_long_names_who_is_late(ray_address, tmp_path):
    settings = ("training.local_epochs=2000", "execution.round_seconds=2")
    with pytest.raises(DeadlineError, match=r"round 1: train: no answer within 2 s from .*-0"):
        run(tiny("execution.executor=ray", *settings), tmp_path)
    assert actors() == {}


@pytest.mark.parametrize("executor", ["serial", "ray"])
def test_a_failing_institution_is_named_with_its_traceback(
    ray_address, tmp_path, monkeypatch, executor
):
    monkeypatch.setenv("FEDFUSE_RAY_CACHE", str(tmp_path / "cache"))
    experiment = tiny(f"execution.executor={executor}")
    table = dataset_of(experiment).folder / "train" / "med-02.arrow"
    table.write_bytes(table.read_bytes()[:200])
    with pytest.raises(InstitutionError) as caught:
        run(experiment, tmp_path / "run")
    assert caught.value.institution == "med-02"
    assert "Traceback" in caught.value.traceback
    assert re.search(r"tables\.py.*line \d+, in read_table", caught.value.traceback)
    assert "Arrow" in caught.value.traceback
    assert actors() == {}


def test_an_executor_that_never_started_can_be_closed():
    from fedfuse_ray.config import ExecutionConfig

    RayExecutor(ExecutionConfig()).close()


def tampered(monkeypatch, number):
    """Alter what one institution sends in a round, on its way to the server."""
    finish = RayCalls.finish

    def altering(calls, round, sent):
        if round == number:
            (messages, names), *rest = sent
            (who, data), *others = ray.get(messages)
            altered = data.copy()
            altered[-20] ^= 1
            sent = [(ray.put([(who, altered), *others]), names), *rest]
        return finish(calls, round, sent)

    monkeypatch.setattr(RayCalls, "finish", altering)


def test_an_altered_update_is_told_of_and_the_round_goes_on_without_it(
    ray_address, tmp_path, caplog, monkeypatch
):
    tampered(monkeypatch, 2)
    run(tiny("execution.executor=ray"), tmp_path)
    (told,) = read_refused(tmp_path)
    assert (told["round"], told["institution"]) == (2, "med-01")
    assert "altered" in told["reason"]
    assert "round 2: what med-01 sent was refused: the update was altered" in caplog.text
    status = {
        (r["round"], r["institution"]): r["status"]
        for r in rows_of(tmp_path, "institutions.parquet")
    }
    assert [key for key, value in status.items() if value != "sent"] == [(2, "med-01")]
    assert status[2, "med-01"] == "failed"
    assert [r["dropouts"] for r in rows_of(tmp_path, "rounds.parquet")] == [0, 1, 0]


class StopAfter(Silent):
    """Stops a process, as one that hangs, after a round was told."""

    def __init__(self, kind, done):
        self.kind, self.done, self.pid = kind, done, None

    def advanced(self, done, total, what, rows):
        if done == self.done:
            self.pid = pid_of(self.kind)
            os.kill(self.pid, signal.SIGSTOP)


@pytest.mark.parametrize("kind", ["host", pytest.param("server", marks=pytest.mark.slow)])
def test_a_process_that_hangs_is_not_waited_for_for_ever(ray_address, tmp_path, kind):
    stopped = StopAfter(kind, 1)
    began = time.monotonic()
    named = "from .*-0" if kind == "host" else "from the parameter server"
    experiment = tiny("execution.executor=ray", "execution.round_seconds=4")
    with pytest.raises(DeadlineError, match=named) as caught:
        run(experiment, tmp_path, progress=stopped)
    assert "execution.round_seconds" in str(caught.value)
    assert time.monotonic() - began < 60
    deadline = time.monotonic() + 30
    while Path(f"/proc/{stopped.pid}").exists():
        assert time.monotonic() < deadline, "the process that hangs was left behind"
        time.sleep(0.2)
    assert actors() == {}
    resume(tmp_path)
    run(tiny(), tmp_path / "whole")
    assert scores_of(tmp_path) == scores_of(tmp_path / "whole")
