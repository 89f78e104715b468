"""What a run's folder tells of one record, besides charged releases and public scores: nothing.

Two runs differ in one record. The charged releases are replaced by ones that don't depend on it,
the clock and the signing key by ones that repeat. Then no byte of the folder may differ, nor
anything that the terminal, the trackers and Ray's metrics are told. With `scores: shown` the
same comparison finds the difference, so it can fail.
"""

from __future__ import annotations

import itertools
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedfuse_ray.config import load
from fedfuse_ray.federation.institution import institution as sites
from fedfuse_ray.federation.institution import private_gradients
from fedfuse_ray.federation.institution.training import LocalTraining, Prediction
from fedfuse_ray.federation.messages.updates import Update
from fedfuse_ray.federation.plan import plan as plans
from fedfuse_ray.runs import running
from fedfuse_ray.terminal import TerminalProgress
from tests.support.private_manifests import Sizes, write

MODES = {
    "record-distributed": ("privacy.mode=record-distributed",),
    "sampled": ("privacy.mode=record-distributed", "privacy.sampling_rate=0.5"),
    "record-local": ("privacy.mode=record-local",),
    "client": ("privacy.mode=client", "privacy.delta=0.01"),
    "local-update": ("privacy.mode=local-update", "privacy.delta=0.01"),
}
HELD = Sizes(held_test=6, shared_test=0)


class Recorder:
    """Keeps what a terminal, a job's log, a tracker or Ray's metrics are told of."""

    def __init__(self):
        self.told = []
        self._terminal = TerminalProgress()

    def stage(self, text):
        self.told.append(text)
        self._terminal.stage(text)

    def advanced(self, done, total, what, rows):
        self.told.append(repr((done, total, what, rows)))
        self._terminal.advanced(done, total, what, rows)


@pytest.fixture(scope="module")
def signing_key(tmp_path_factory):
    path = tmp_path_factory.mktemp("key") / "key.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", path], check=True)
    return path


@pytest.fixture
def stubs(monkeypatch):
    """Replace every charged release, and the noise's dependence on the data, by fixed ones."""
    gradient_sum = private_gradients.clipped_gradient_sum
    run_round = LocalTraining.run_round

    def fixed_sum(*args, **kwargs):
        clipped, loss = gradient_sum(*args, **kwargs)
        zeros = {name: np.zeros_like(vector) for name, vector in clipped.sums.items()}
        return replace(clipped, sums=zeros), loss

    def fixed_round(self, *args, **kwargs):
        result = run_round(self, *args, **kwargs)
        zeros = {name: np.zeros_like(vector) for name, vector in result.update.weights.items()}
        return replace(result, update=Update(zeros))

    def fixed_scores(counted, terms, draws, name):
        return {
            view: Prediction(np.full_like(p.confusion, 2), np.zeros_like(p.attention))
            for view, p in counted.items()
        }

    monkeypatch.setattr(private_gradients, "clipped_gradient_sum", fixed_sum)
    monkeypatch.setattr(LocalTraining, "run_round", fixed_round)
    monkeypatch.setattr(sites, "noised", fixed_scores)
    monkeypatch.setattr(running, "environment", lambda: {"time": "fixed"})
    monkeypatch.setattr(plans, "facts", lambda *public_and_private: iter(()))


@pytest.fixture
def published(tmp_path, monkeypatch, signing_key, stubs, capsys):
    """Return what a run on a manifest with one record changed hands out: files, and texts."""

    def run(changed, sizes, *settings):
        folder = tmp_path / "run"
        manifest = write(tmp_path / "data", sizes, changed)
        experiment = load(
            "real",
            [
                "execution.executor=serial",
                f"execution.signing_key={signing_key}",
                "data.image_size=16",
                "training.rounds=2",
                "training.batch_size=4",
                "compression.codec=fp32",
                *settings,
            ],
            paradigm="fedfuse",
            manifest=manifest,
        )
        recorder = Recorder()
        with monkeypatch.context() as clock:
            for name in ("perf_counter", "monotonic"):
                clock.setattr(time, name, itertools.count().__next__)
            running.run(experiment, folder, progress=recorder)
        files = {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        told = {"told": "\n".join(recorder.told), "terminal": capsys.readouterr().out}
        return files | told

    return run


def differing(one, other):
    """Return what is not the same in two runs."""
    assert one.keys() == other.keys()
    return {name for name in one if one[name] != other[name]}


@pytest.mark.parametrize("changed", ["north-train-0", "north-validation-0"])
@pytest.mark.parametrize("mode", MODES)
def test_nothing_but_charged_releases_tells_of_a_record(mode, changed, published):
    before, after = published("", Sizes(), *MODES[mode]), published(changed, Sizes(), *MODES[mode])
    assert differing(before, after) == set()
    assert {"rounds.parquet", "report.html", "evaluation.json"} <= before.keys()
    assert any(Path(name).suffix == ".npz" for name in before)


@pytest.mark.parametrize("mode", ["record-distributed", "record-local"])
@pytest.mark.parametrize("changed", ["north-train-0", "north-validation-0", "north-test-0"])
def test_nothing_but_noised_scores_tells_of_a_test_record(mode, changed, published):
    before, after = published("", HELD, *MODES[mode]), published(changed, HELD, *MODES[mode])
    assert differing(before, after) == set()


def test_test_records_beside_a_shared_test_set_are_not_looked_at(published):
    sizes = Sizes(held_test=6)
    assert differing(published("", sizes), published("north-test-0", sizes)) == set()


@pytest.mark.parametrize(
    ("changed", "sizes"),
    [
        ("north-train-0", Sizes()),
        ("north-validation-0", Sizes()),
        ("north-test-0", HELD),
        ("north-test-0", Sizes(held_test=6)),
    ],
)
def test_shown_scores_tell_of_a_record(changed, sizes, published):
    runs = [published(name, sizes, "privacy.scores=shown") for name in ("", changed)]
    assert {"report.html", "told"} <= differing(*runs)
    assert differing(*runs) & {"rounds.parquet", "institutions.parquet"}
