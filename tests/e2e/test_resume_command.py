"""A run killed with no chance to tidy up goes on to the identical result."""

from __future__ import annotations

import json

import pytest

from fedfuse_ray.runs.running import run
from fedfuse_ray.runs.verifying import verify_run
from tests.support.federations import rows_of, scores_of, tiny
from tests.support.processes.commands import done, fedfuse, killed_once, refused, rounds_in

# Long enough that the kill falls into the run, which takes about a second and a half.
SETTINGS = ("training.rounds=30", "strategy.kind=scaffold")
LONG = [word for setting in SETTINGS for word in ("--set", setting)]
TABLES = ("rounds.parquet", "institutions.parquet")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    run(tiny(*SETTINGS), folder)
    return folder


def same(folder, whole):
    assert scores_of(folder) == scores_of(whole)
    for table in TABLES:
        assert rows_of(folder, table) == rows_of(whole, table)
    assert {p.name for p in folder.iterdir()} == {p.name for p in whole.iterdir()}
    evaluation = "evaluation.json"
    assert (folder / evaluation).read_text() == (whole / evaluation).read_text()
    ledger = "privacy_ledger.jsonl"
    assert (folder / ledger).read_text() == (whole / ledger).read_text()
    assert [check for check in verify_run(folder) if check.passed is False] == []


def test_a_run_in_one_process(whole, tmp_path):
    command = ("run", "tiny", "--executor", "serial", *LONG, "--out", tmp_path)
    killed_once(lambda: rounds_in(tmp_path) >= 12, *command)
    assert 12 <= rounds_in(tmp_path) < 30
    assert not (tmp_path / "summary.json").exists()
    assert json.loads((tmp_path / "environment.json").read_text())
    assert rows_of(tmp_path, "institutions.parquet")[-1]["round"] >= rounds_in(tmp_path)
    done("run", "--resume", tmp_path, "--no-progress")
    same(tmp_path, whole)


def test_a_private_run_keeps_a_valid_chain(tmp_path):
    setting = "training.rounds=16"
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(tiny(setting, paradigm="fedfuse"), whole)
    settings = ("--paradigm", "fedfuse", "--set", setting)
    command = ("run", "tiny", "--executor", "serial", *settings, "--out", broken)
    # Entries of a round are on the disk before the round, and its checkpoint comes after it.
    ledger = broken / "privacy_ledger.jsonl"
    killed_once(lambda: ledger.is_file() and '"round": 5,' in ledger.read_text(), *command)
    assert next(c.name for c in verify_run(broken) if c.passed is False) == "seal"
    done("run", "--resume", broken, "--no-progress")
    same(broken, whole)


def test_a_private_run_whose_secret_is_gone_is_refused(tmp_path):
    settings = ("--paradigm", "fedfuse", "--set", "privacy.randomness=secret")
    command = ("run", "tiny", "--executor", "serial", *settings, "--set", "training.rounds=16")
    ledger = tmp_path / "privacy_ledger.jsonl"
    killed_once(
        lambda: ledger.is_file() and '"round": 3,' in ledger.read_text(),
        *(*command, "--out", tmp_path),
    )
    (tmp_path / "privacy_secret").unlink()
    line = refused("run", "--resume", tmp_path, "--no-progress")
    assert "privacy.randomness" in line
    assert "secret is gone" in line


@pytest.mark.ray
def test_a_run_on_ray(whole, tmp_path, ray_address):
    command = ("run", "tiny", "--executor", "ray", *LONG, "--out", tmp_path)
    killed_once(lambda: rounds_in(tmp_path) >= 5, *command, RAY_ADDRESS=ray_address)
    assert 5 <= rounds_in(tmp_path) < 30
    done("run", "--resume", tmp_path, "--no-progress", RAY_ADDRESS=ray_address)
    same(tmp_path, whole)


@pytest.mark.parametrize(
    "paradigm", ["isolated", pytest.param("centralized", marks=pytest.mark.slow)]
)
def test_training_apart(tmp_path, paradigm):
    setting = "training.max_epochs=30"
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(tiny(setting, paradigm=paradigm), whole)
    settings = ("--paradigm", paradigm, "--set", setting)
    command = ("run", "tiny", "--executor", "serial", *settings, "--no-progress", "--out")
    kept = broken / "checkpoints"
    killed_once(lambda: any(kept.glob("alone-*.npz")), *command, broken)
    names = {path.name: path.stat().st_mtime_ns for path in kept.glob("alone-*.npz")}
    done("run", "--resume", broken, "--no-progress")
    same(broken, whole)
    for name, stamp in names.items():
        assert (kept / name).stat().st_mtime_ns == stamp


def test_a_config_that_was_damaged_since_is_bad_input(tmp_path):
    (tmp_path / "config.yaml").write_text("training: {rounds: -3}\n")
    finished = fedfuse("run", "--resume", tmp_path)
    assert finished.returncode == 2
    assert len(finished.stderr.splitlines()) == 1


def test_a_resumed_run_keeps_its_own_settings(tmp_path):
    done("run", "tiny", "--executor", "serial", "--out", tmp_path, "--no-progress")
    for option, value in (("--seed", "3"), ("--set", "training.rounds=9")):
        finished = fedfuse("run", "--resume", tmp_path, option, value)
        assert finished.returncode == 2
        assert finished.stderr.startswith(f"error: {option}: '{value}'")
        assert len(finished.stderr.splitlines()) == 1
    done("run", "--resume", tmp_path, "--seed", "0", "--executor", "serial", "--no-progress")
