"""Files of an interrupted run that were damaged since: what --resume makes of each."""

from __future__ import annotations

import json
import shutil

import pytest

from fedfuse_ray.runs.running import Silent, run
from tests.support.federations import rows_of, scores_of, tiny
from tests.support.processes.commands import fedfuse

ROUNDS = ("training.rounds=4",)


class PowerCut(Exception):
    """What breaks a run off."""


class Cut(Silent):
    """Breaks the run off once round 4 was told, with checkpoints of rounds 2 and 3."""

    def advanced(self, done, total, what, rows):
        if done == 4:
            raise PowerCut


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return an undisturbed run's folder, and one of a run that was broken off."""
    whole, cut = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("cut")
    experiment = tiny(*ROUNDS, paradigm="federated_dp")
    run(experiment, whole)
    with pytest.raises(PowerCut):
        run(experiment, cut, progress=Cut())
    return whole, cut


def shorten(path):
    path.write_bytes(path.read_bytes()[:-7])


def resumed(folders, out, *damaged):
    """Damage files of the interrupted run and resume it."""
    shutil.copytree(folders[1], out)
    for name in damaged:
        shorten(out / name)
    return fedfuse("run", "--resume", out, "--no-progress")


def test_a_broken_checkpoint_is_told_of_and_the_one_before_taken(folders, tmp_path):
    newest, older = (f"checkpoints/round-{n:06d}.npz" for n in (3, 2))
    for damaged, told in (
        ((newest,), ["round-000003.npz can't be read"]),
        ((newest, older), ["round-000003", "round-000002", "starting again from round 1"]),
    ):
        out = tmp_path / str(len(damaged))
        finished = resumed(folders, out, *damaged)
        assert finished.returncode == 0, finished.stderr
        lines = finished.stderr.splitlines()
        assert len(lines) == len(told)
        for line, wanted in zip(lines, told, strict=True):
            assert wanted in line
        assert scores_of(out) == scores_of(folders[0])
        table = "institutions.parquet"
        assert rows_of(out, table) == rows_of(folders[0], table)
        ledger = "privacy_ledger.jsonl"
        assert (out / ledger).read_text() == (folders[0] / ledger).read_text()


def test_a_broken_table_is_named_and_nothing_is_overwritten(folders, tmp_path):
    finished = resumed(folders, tmp_path / "run", "rounds.parquet")
    assert finished.returncode == 2
    assert len(finished.stderr.splitlines()) == 1
    assert "rounds.parquet" in finished.stderr
    assert "bring back a copy" in finished.stderr
    shutil.copy(folders[1] / "rounds.parquet", tmp_path / "run")
    assert fedfuse("run", "--resume", tmp_path / "run", "--no-progress").returncode == 0
    assert scores_of(tmp_path / "run") == scores_of(folders[0])


def test_a_ledger_altered_in_the_middle_is_refused(folders, tmp_path):
    shutil.copytree(folders[1], tmp_path / "run")
    path = tmp_path / "run" / "privacy_ledger.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    event = json.loads(lines[1])
    lines[1] = json.dumps(event | {"noise_multiplier": 2 * event["noise_multiplier"]}) + "\n"
    path.write_text("".join(lines))
    finished = fedfuse("run", "--resume", tmp_path / "run")
    assert finished.returncode == 2
    assert len(finished.stderr.splitlines()) == 1
    assert "entry 2" in finished.stderr
