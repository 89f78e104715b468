"""The domains in `examples/` run as they stand, without a change in the library."""

from __future__ import annotations

import pytest

from fedfuse_ray.config import load
from fedfuse_ray.data.phantoms import known_models
from fedfuse_ray.federation.plan import public_encoders
from fedfuse_ray.runs.running import run
from tests.support.federations import scores_of
from tests.support.paths import EXAMPLES

NEW = {"astronomy": 4, "genomics": 3}


def small(name, *settings, executor="serial", paradigm=None):
    sizes = [
        *("data.image_size=16", "data.signal_length=64", f"data.domains.{name}.specimens=80"),
        *("training.rounds=2", "model.encoder.width=4", f"execution.executor={executor}"),
    ]
    file = EXAMPLES / name / f"{name}.yaml"
    return load(file, [*sizes, *settings], paradigm=paradigm)


@pytest.mark.parametrize("name", NEW)
def test_a_new_domain_of_two_modalities_runs(name, tmp_path):
    experiment = small(name)
    summary = run(experiment, tmp_path)
    assert len(experiment.institutions) == NEW[name]
    assert summary.preset == name
    assert set(summary.accuracy) == {"overall", name}
    own = set(known_models(experiment.data.forward_models)) - set(known_models(()))
    assert set(summary.accuracy_by_modality) == own
    assert len(own) == 2


@pytest.mark.slow
@pytest.mark.ray
def test_on_ray_and_with_public_encoders_it_is_the_same(tmp_path, ray_address, monkeypatch):
    monkeypatch.setattr(public_encoders, "_EPOCHS", 1)
    monkeypatch.setattr(public_encoders, "_SPECIMENS", 64)
    for executor in ("serial", "ray"):
        run(small("astronomy", executor=executor, paradigm="fedfuse"), tmp_path / executor)
    assert scores_of(tmp_path / "ray") == scores_of(tmp_path / "serial")


@pytest.mark.slow
@pytest.mark.parametrize("name", NEW)
def test_fusion_is_better_than_each_modality(name, tmp_path):
    file = EXAMPLES / name / f"{name}.yaml"
    summary = run(load(file, ["execution.executor=serial"]), tmp_path)
    assert summary.accuracy["overall"] > max(summary.accuracy_by_modality.values()) + 0.1
