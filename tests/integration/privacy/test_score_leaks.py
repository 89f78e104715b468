"""What a run's folder tells of one record, besides charged releases and public scores: nothing.

Two runs differ in one record. The charged releases are replaced by ones that don't depend on it,
the clock and the signing key by ones that repeat. Then no byte of the folder may differ, nor
anything that the terminal, the trackers and Ray's metrics are told. With `scores: shown` the
same comparison finds the difference, so it can fail.
"""

from __future__ import annotations

import io
import itertools
import json
import shutil
import subprocess
import time
from contextlib import redirect_stdout
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from fedfuse_ray.accounts.terms import NOTE
from fedfuse_ray.config import load
from fedfuse_ray.federation.institution import institution as sites
from fedfuse_ray.federation.institution import private_gradients
from fedfuse_ray.federation.institution.training import LocalTraining, Prediction
from fedfuse_ray.federation.messages.updates import Update
from fedfuse_ray.federation.plan import plan as plans
from fedfuse_ray.runs import running
from fedfuse_ray.terminal import TerminalProgress
from tests.support.private_manifests import Sizes, write

SLOW = pytest.mark.slow
MODES = {
    "record-distributed": ("fedfuse",),
    "record-local": ("fedfuse", "privacy.mode=record-local"),
    "sampled": ("fedfuse", "privacy.sampling_rate=0.5"),
    "adaptive-clipping": ("fedfuse", "privacy.adaptive_clipping.enabled=true"),
    "adaptive-noise": ("fedfuse", "privacy.noise_schedule=adaptive"),
    "client": ("fedfuse", "privacy.mode=client", "privacy.delta=0.01"),
    "local-update": ("fedfuse", "privacy.mode=local-update", "privacy.delta=0.01"),
    "federated_dp": ("federated_dp",),
    "centralized_dp": ("centralized_dp",),
}
SHOWN = ("fedfuse", "privacy.scores=shown")
SHARED, HELD = Sizes(), Sizes(held_test=6, shared_test=0)


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


def stub(patch):
    """Replace every charged release, and the noise's dependence on the data, by fixed ones."""
    gradient_sum = private_gradients.clipped_gradient_sum
    run_round = LocalTraining.run_round

    def zeros(vectors):
        return {name: np.zeros_like(vector) for name, vector in vectors.items()}

    def fixed_sum(*args, **kwargs):
        clipped, loss = gradient_sum(*args, **kwargs)
        return replace(clipped, sums=zeros(clipped.sums), norms=zeros(clipped.norms)), loss

    def fixed_round(self, *args, **kwargs):
        result = run_round(self, *args, **kwargs)
        return replace(result, update=Update(zeros(result.update.weights)))

    def fixed_scores(counted, terms, draws, name):
        return {
            view: Prediction(np.full_like(p.confusion, 2), np.zeros_like(p.attention))
            for view, p in counted.items()
        }

    patch.setattr(private_gradients, "clipped_gradient_sum", fixed_sum)
    patch.setattr(LocalTraining, "run_round", fixed_round)
    patch.setattr(sites, "noised", fixed_scores)
    patch.setattr(plans, "facts", lambda *public_and_private: iter(()))
    patch.setattr(running, "environment", lambda: {"time": "fixed"})
    for clock in ("perf_counter", "monotonic"):
        patch.setattr(time, clock, itertools.count().__next__)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Return what a run on a manifest with one record changed hands out: files, and texts."""
    place = tmp_path_factory.mktemp("leaks")
    key = place / "key.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)

    @cache
    def run(changed, sizes, paradigm, *settings):
        folder, text = place / "run", io.StringIO()
        experiment = load(
            "real",
            [
                "execution.executor=serial",
                f"execution.signing_key={key}",
                "data.image_size=16",
                "training.rounds=2",
                "training.batch_size=4",
                "compression.codec=fp32",
                *settings,
            ],
            paradigm=paradigm,
            manifest=write(place / "data", sizes, changed),
        )
        shutil.rmtree(folder, ignore_errors=True)
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(text):
            stub(patch)
            recorder = Recorder()
            running.run(experiment, folder, progress=recorder)
        files = {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        note = json.loads(files.pop(NOTE))
        files[NOTE] = {name: value for name, value in note.items() if name != "run"}  # drawn anew
        return files | {"told": "\n".join(recorder.told), "terminal": text.getvalue()}

    return run


def differing(one, other):
    """Return what is not the same in two runs."""
    assert one.keys() == other.keys()
    return {name for name in one if one[name] != other[name]}


@pytest.mark.parametrize("changed", ["north-train-0", "north-validation-0"])
@pytest.mark.parametrize(
    "mode", [name if not i else pytest.param(name, marks=SLOW) for i, name in enumerate(MODES)]
)
def test_nothing_but_charged_releases_tells_of_a_record(mode, changed, published):
    before, after = (published(name, SHARED, *MODES[mode]) for name in ("", changed))
    assert differing(before, after) == set()
    assert {"rounds.parquet", "report.html", "evaluation.json", "told"} <= before.keys()
    assert any(Path(name).suffix == ".npz" for name in before)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param("north-train-0", marks=SLOW),
        pytest.param("north-validation-0", marks=SLOW),
        "north-test-0",
    ],
)
def test_nothing_but_noised_scores_tells_of_a_test_record(changed, published):
    before, after = (published(n, HELD, *MODES["record-distributed"]) for n in ("", changed))
    assert differing(before, after) == set()


@pytest.mark.slow
def test_test_records_beside_a_shared_test_set_are_not_looked_at(published):
    sizes, mode = Sizes(held_test=6), MODES["record-distributed"]
    assert differing(published("", sizes, *mode), published("north-test-0", sizes, *mode)) == set()


@pytest.mark.parametrize(
    ("changed", "sizes"),
    [
        ("north-train-0", SHARED),
        ("north-validation-0", SHARED),
        pytest.param("north-test-0", HELD, marks=SLOW),
        pytest.param("north-test-0", Sizes(held_test=6), marks=SLOW),
    ],
)
def test_shown_scores_tell_of_a_record(changed, sizes, published):
    runs = [published(name, sizes, *SHOWN) for name in ("", changed)]
    assert {"report.html", "told"} <= differing(*runs)
    assert differing(*runs) & {"rounds.parquet", "institutions.parquet"}
