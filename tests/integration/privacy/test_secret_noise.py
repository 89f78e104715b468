"""Runs whose noise comes from a secret root: it is kept until they end, and then by nobody."""

from __future__ import annotations

import json

import pytest

from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.modes.outcome import EVERYONE
from fedfuse_ray.federation.rounds.serial import SerialExecutor
from fedfuse_ray.privacy import randomness
from fedfuse_ray.privacy.randomness import Randomness
from fedfuse_ray.runs import running, secrets
from tests.support.federations import scores_of, tiny

SECRET = "privacy.randomness=secret"
MODES = ("record-distributed", "record-local", "client", "local-update")


def experiment_of(*settings, mode="record-distributed"):
    return tiny(SECRET, f"privacy.mode={mode}", *settings, paradigm="fedfuse")


class Dying(SerialExecutor):
    """Dies in the second round, once it was charged."""

    def train(self, round, attendance=EVERYONE, epoch=0):
        if round == 2:
            raise KeyboardInterrupt
        return super().train(round, attendance, epoch)


def broken_off(experiment, folder):
    with pytest.raises(KeyboardInterrupt):
        running.run(experiment, folder, executor=Dying())
    return folder / secrets.FILE


def holding(folder, root):
    """Return the files that hold a root, as bytes or in hex."""
    return [
        path.name
        for path in folder.rglob("*")
        if path.is_file() and any(form in path.read_bytes() for form in (root, root.hex().encode()))
    ]


@pytest.mark.parametrize("mode", MODES)
def test_a_resumed_run_is_the_undisturbed_one_and_forgets_its_root(tmp_path, monkeypatch, mode):
    experiment, folder = experiment_of(mode=mode), tmp_path / "run"
    file = broken_off(experiment, folder)
    root = file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600
    # Nothing else that is written holds it: no checkpoint, no ledger, no table.
    assert holding(folder, root) == [secrets.FILE]
    running.resume(folder)
    assert holding(folder, root) == []
    assert not file.exists()
    # The same root, undisturbed.
    monkeypatch.setattr(secrets, "secret", lambda: Randomness(root))
    running.run(experiment, tmp_path / "whole")
    assert scores_of(folder) == scores_of(tmp_path / "whole")
    assert holding(tmp_path / "whole", root) == []


def test_what_is_searched_for_would_be_found(tmp_path):
    """Negative control of `holding`: a root that somebody writes down."""
    root = randomness.secret().root
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "bytes.npz").write_bytes(b"PK" + root + b"rest")
    (tmp_path / "text.json").write_text(json.dumps({"root": root.hex()}))
    assert sorted(holding(tmp_path, root)) == ["bytes.npz", "text.json"]


def test_two_runs_of_one_configuration_differ(tmp_path):
    secret = [running.run(experiment_of(), tmp_path / name) for name in ("one", "other")]
    assert secret[0].weights_sha256 != secret[1].weights_sha256
    assert secret[0].privacy.epsilon == secret[1].privacy.epsilon
    # The control: with noise that follows from the seed they are the same run.
    derived = [
        running.run(tiny(paradigm="fedfuse"), tmp_path / name) for name in ("third", "fourth")
    ]
    assert derived[0].weights_sha256 == derived[1].weights_sha256


def test_a_run_without_privacy_keeps_no_secret(tmp_path):
    running.run(tiny(SECRET), tmp_path)
    assert not (tmp_path / secrets.FILE).exists()


def test_the_statement_is_about_who_has_the_seed_only_where_noise_follows_from_it():
    assert "seed" in tiny(paradigm="fedfuse").privacy.adversary
    assert "seed" not in experiment_of().privacy.adversary


@pytest.mark.parametrize("left", [None, b"", b"short"])
def test_a_run_does_not_go_on_without_its_root(tmp_path, left):
    file = broken_off(experiment_of(), tmp_path / "run")
    if left is None:
        file.unlink()
    else:
        file.write_bytes(left)
    with pytest.raises(InputError, match=r"privacy\.randomness"):
        running.resume(tmp_path / "run")


def test_a_fresh_run_in_the_same_folder_has_a_root_of_its_own(tmp_path):
    file = broken_off(experiment_of(), tmp_path / "run")
    first = file.read_bytes()
    assert broken_off(experiment_of(), tmp_path / "run").read_bytes() != first
