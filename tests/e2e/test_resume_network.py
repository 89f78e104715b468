"""Runs over simulated links, broken off and continued: states, broadcasts, updates on their way."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedfuse_ray.federation.checkpoints import checkpoint as checkpoints
from fedfuse_ray.federation.rounds.serial import SerialExecutor
from fedfuse_ray.runs.running import Silent, resume, run
from tests.support.federations import rows_of, scores_of, tiny
from tests.support.processes.commands import done, killed_once
from tests.support.watching import NO_COLLUDERS

TABLES = ("rounds.parquet", "institutions.parquet")
ROUNDS = 6

SHAKY = """network.links={
    med-01: {up_mbps: 10.0, down_mbps: 10.0, jitter_ms: 700.0},
    mat-01: {up_mbps: 10.0, down_mbps: 10.0, latency_ms: 5.0, jitter_ms: 3.0},
}"""
DEADLINE = "network.aggregation={kind: deadline, deadline_seconds: 1.0}"
NOW_AND_THEN = """network.links={
    med-01: {up_mbps: 10.0, down_mbps: 10.0, availability: 0.5},
    mat-01: {up_mbps: 10.0, down_mbps: 10.0, availability: 0.7, jitter_ms: 3.0},
}"""
HOURS = """network.links={
    med-01: {up_mbps: 10.0, down_mbps: 10.0, offline: [[0.0, 0.06], [0.15, 0.2]]},
    med-02: {up_mbps: 10.0, down_mbps: 10.0, offline: [[0.0, 0.04]]},
    mat-01: {up_mbps: 10.0, down_mbps: 10.0, offline: [[0.0, 0.04], [0.08, 0.12]]},
}"""
BEHIND = """network.links={
    med-01: {up_mbps: 2.0, down_mbps: 50.0, latency_ms: 3.0, jitter_ms: 2.0},
    med-02: {up_mbps: 50.0, down_mbps: 50.0, latency_ms: 2.0},
}"""
BUFFERED = "network.aggregation={kind: buffered-async, buffer_size: 2}"
CHANGES = "compression.downlink.codec=modint"

CASES = {
    "ef21": (("compression.codec=topk", "compression.feedback=ef21"), "fedfuse_nonprivate"),
    "ef21 with late ones": (
        ("compression.codec=topk", "compression.feedback=ef21", SHAKY, DEADLINE),
        "fedfuse_nonprivate",
    ),
    "adaptive": (
        ("compression.codec=topk", "compression.policy.kind=adaptive", SHAKY, DEADLINE),
        "fedfuse_nonprivate",
    ),
    "changes with absences": ((CHANGES, NOW_AND_THEN), "fedfuse_nonprivate"),
    "changes and hours": ((CHANGES, HOURS), "fedfuse_nonprivate"),
    "secure changes with absences": (
        (CHANGES, NOW_AND_THEN, "compression.codec=modint", NO_COLLUDERS),
        "fedfuse",
    ),
    "secure deadline": ((SHAKY, DEADLINE, CHANGES, NO_COLLUDERS), "fedfuse"),
    "changes with absences, chosen and weighed by loss": (
        (CHANGES, NOW_AND_THEN, "selection.kind=cyclic", "strategy.weighting=loss"),
        "fedfuse_nonprivate",
    ),
    "buffered": ((BEHIND, BUFFERED), "fedfuse_nonprivate"),
    "buffered with ef14": (
        (BEHIND, BUFFERED, "compression.codec=topk", "compression.feedback=ef14"),
        "fedfuse_nonprivate",
    ),
}


class PowerCut(Exception):
    """What breaks a run off."""


class CutAfter(Silent):
    """Breaks the run off once a round was told, before its checkpoint is written."""

    def __init__(self, count):
        self.count = count

    def advanced(self, done, total, what, rows):
        if done == self.count:
            raise PowerCut


class DiesIn(SerialExecutor):
    """Dies in a round, after its institutions have trained."""

    def __init__(self, round):
        super().__init__()
        self.round = round

    def train(self, round, attendance, epoch=0):
        outcome = super().train(round, attendance, epoch)
        if round == self.round:
            raise PowerCut
        return outcome


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the folder of a case's undisturbed run, made once."""
    made = {}

    def folder_of(case):
        if case not in made:
            made[case] = tmp_path_factory.mktemp("whole")
            run(experiment(case), made[case])
        return made[case]

    return folder_of


def experiment(case):
    settings, paradigm = CASES[case]
    return tiny(*settings, f"training.rounds={ROUNDS}", paradigm=paradigm)


def same(folder, other):
    assert scores_of(folder) == scores_of(other)
    for table in TABLES:
        assert rows_of(folder, table) == rows_of(other, table)
        virtual = [name for name in pq.read_table(other / table).column_names if "simul" in name]
        for name in virtual:
            assert pq.read_table(folder / table)[name] == pq.read_table(other / table)[name]
    seconds = [json.loads((f / "summary.json").read_text())["time"] for f in (folder, other)]
    assert seconds[0]["simulated_seconds"] == seconds[1]["simulated_seconds"] > 0


def statuses(folder):
    return {row["status"] for row in rows_of(folder, "institutions.parquet")}


@pytest.mark.parametrize("case", CASES)
def test_broken_off_and_continued_is_the_undisturbed_run(whole, tmp_path, case):
    with pytest.raises(PowerCut):
        run(experiment(case), tmp_path, executor=DiesIn(3))
    with pytest.raises(PowerCut):
        resume(tmp_path, executor=DiesIn(5))
    with pytest.raises(PowerCut):
        resume(tmp_path, progress=CutAfter(6))
    path = checkpoints.latest(tmp_path / "checkpoints", 99)
    assert checkpoints.round_of(path) == 5
    resume(tmp_path)
    same(tmp_path, whole(case))


def test_the_cases_are_what_they_say(whole):
    for case in CASES:
        found = statuses(whole(case))
        # At the end of a buffered run an update is still on its way.
        assert ("late" in found) == (DEADLINE in CASES[case][0] or "buffered" in case)
        assert ("absent" in found) == ("absences" in case or "hours" in case)
    for case in ("buffered", "buffered with ef14"):
        ages = [row["staleness"] for row in rows_of(whole(case), "institutions.parquet")]
        assert max(ages) > 0


def edited(path, change):
    """Write a checkpoint again with something changed."""
    kept = checkpoints.read(path)
    change(kept)
    path.unlink()
    checkpoints.save(path.parent, kept)


def forget_states(kept):
    assert kept.institutions
    kept.institutions.clear()


def forget_what_is_held(kept):
    assert kept.server.held
    kept.server.held.clear()


def forget_what_is_on_its_way(kept):
    assert kept.carried
    kept.carried.clear()


@pytest.mark.parametrize(
    ("case", "forget"),
    [
        ("ef21", forget_states),
        ("buffered with ef14", forget_states),
        ("changes with absences", forget_what_is_held),
        ("buffered", forget_what_is_on_its_way),
    ],
)
def test_nothing_that_a_checkpoint_holds_may_be_missing(whole, tmp_path, case, forget):
    """The control: without it the continued run is another one."""
    with pytest.raises(PowerCut):
        run(experiment(case), tmp_path, executor=DiesIn(4))
    edited(checkpoints.latest(tmp_path / "checkpoints", 99), forget)
    resume(tmp_path)
    assert scores_of(tmp_path) != scores_of(whole(case))


def test_updates_on_their_way_are_in_the_checkpoint(tmp_path):
    with pytest.raises(PowerCut):
        run(experiment("buffered"), tmp_path, executor=DiesIn(3))
    kept = checkpoints.read(checkpoints.latest(tmp_path / "checkpoints", 99))
    assert kept.round == 2
    (carried,) = kept.carried.values()
    assert carried.flight.institution == carried.record.institution == "med-01"
    assert carried.flight.version == 0
    assert carried.flight.arrives == carried.record.timing.total
    assert len(carried.payload) == carried.record.uplink_bytes


def rounds_told(folder):
    """Return how many rounds a run has told of; the file is opened once, as it may be replaced."""
    path = folder / "rounds.parquet"
    return pq.read_table(pa.BufferReader(path.read_bytes())).num_rows if path.is_file() else 0


def test_killed_in_a_process_of_its_own(tmp_path):
    settings, paradigm = CASES["buffered with ef14"]
    settings = (*settings, "training.rounds=30")
    undisturbed, broken = tmp_path / "whole", tmp_path / "broken"
    run(tiny(*settings, paradigm=paradigm), undisturbed)
    words = [word for setting in settings for word in ("--set", setting)]
    command = ("run", "tiny", "--paradigm", paradigm, "--executor", "serial", *words)
    killed_once(lambda: rounds_told(broken) >= 8, *command, "--out", broken)
    assert 8 <= rounds_told(broken) < 30
    done("run", "--resume", broken, "--no-progress")
    same(broken, undisturbed)
