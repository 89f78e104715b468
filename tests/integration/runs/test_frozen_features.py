"""A user's manifest through frozen encoders of timm: features once, the same result everywhere."""

from __future__ import annotations

import json
import sys

import pytest

from fedfuse_ray.config import load
from fedfuse_ray.data.exporting import write_manifest
from fedfuse_ray.data.phantoms import generate
from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.institution.tensors import BackboneCache
from fedfuse_ray.models import features
from fedfuse_ray.runs.progress import Silent
from fedfuse_ray.runs.running import run
from tests.support.federations import plan_of, scores_of, tiny

pytest.importorskip("timm", reason="the extra `pretrained` is not installed")
ENCODER = "model.encoder={kind: timm, name: test_efficientnet, trainable: false, projection: 16}"


class Told(Silent):
    def __init__(self):
        self.stages = []

    def stage(self, text):
        self.stages.append(text)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Return the specimens of `tiny`, images and signals, as a user's manifest."""
    experiment = tiny()
    path = tmp_path_factory.mktemp("own") / "images.parquet"
    header, parts = generate(experiment.data, experiment.institutions, seed=0)
    write_manifest(path, header, parts)
    return path


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDFUSE_RAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def experiment(manifest, *settings, paradigm="fedfuse", executor="serial"):
    chosen = [f"execution.executor={executor}", "training.rounds=4", ENCODER, *settings]
    return load("manifest", chosen, paradigm=paradigm, manifest=manifest)


def test_features_are_made_once_for_all_paradigms_and_seeds(manifest, own_cache, tmp_path):
    first, other = Told(), Told()
    weights = run(experiment(manifest), tmp_path / "a", progress=first).weights_sha256
    again = run(experiment(manifest), tmp_path / "b", progress=other).weights_sha256
    assert weights == again
    assert any(text.startswith("Encoding ") for text in first.stages)
    assert not any(text.startswith("Encoding ") for text in other.stages)
    assert any("by the files' headers" in text and "gray" in text for text in first.stages)
    files = set((own_cache / "features").rglob("*.npy"))
    # Signals go through one bank whatever the seed; a network drawn from the seed is another one.
    for paradigm in ("centralized", "isolated", "federated", "fedfuse_nonprivate"):
        short = ("training.max_epochs=2", "training.rounds=1")
        run(experiment(manifest, *short, paradigm=paradigm), tmp_path / paradigm)
    assert set((own_cache / "features").rglob("*.npy")) == files


def test_a_packed_run_and_an_emptied_cache_change_nothing(manifest, own_cache, tmp_path):
    run(experiment(manifest), tmp_path / "a")
    for file in (own_cache / "features").rglob("*.npy"):
        file.unlink()
    run(experiment(manifest, "execution.institutions_per_actor=2"), tmp_path / "b")
    assert scores_of(tmp_path / "a") == scores_of(tmp_path / "b")


@pytest.mark.ray
def test_ray_gives_what_this_process_gives(ray_address, manifest, tmp_path):
    run(experiment(manifest), tmp_path / "serial")
    run(experiment(manifest, executor="ray"), tmp_path / "ray")
    assert scores_of(tmp_path / "ray") == scores_of(tmp_path / "serial")


def test_heads_alone_are_trained_and_sent(manifest, own_cache, tmp_path):
    summary = run(experiment(manifest), tmp_path)
    assert summary.privacy.epsilon <= 1.0
    evaluation = json.loads((tmp_path / "evaluation.json").read_text())
    assert set(evaluation["domains"]) == {"medical", "materials"}


def test_without_the_extra_nothing_is_touched(manifest, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"pip install 'fedfuse-ray\[pretrained\]'"):
        run(experiment(manifest), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_signals_alone_need_no_extra(tmp_path, monkeypatch):
    experiment_ = tiny("restrict.modalities=[spectroscopy]")
    path = tmp_path / "spectra.parquet"
    header, parts = generate(experiment_.data, experiment_.institutions, seed=0)
    write_manifest(path, header, parts)
    monkeypatch.setitem(sys.modules, "timm", None)  # as if it were not installed
    plain, out = ["execution.executor=serial", "training.rounds=2"], tmp_path / "out"
    summary = run(load("manifest", plain, paradigm="fedfuse_nonprivate", manifest=path), out)
    assert summary.accuracy["materials"] > 0


def test_the_small_cnn_is_too_cheap_to_keep():
    backbones = BackboneCache(plan_of(tiny("model.encoder.trainable=false")).spec)
    assert not any(backbones.costly(m) for m in ("ct", "mri"))
    assert features.PACK % features.BATCH == 0
