"""Encoders pre-trained on public phantoms: once, the same anywhere, and never on a seed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from fedfuse_ray.config.settings.model import EncoderConfig
from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.plan import public_encoders
from fedfuse_ray.models.encoders import public_weights_path
from fedfuse_ray.models.initial import frozen_backbone, initial_blocks
from tests.support.federations import spec_of


def public_spec(**encoder):
    spec = spec_of(weights="public", **encoder)
    return dataclasses.replace(
        spec,
        domains={"medical": ("ct", "mri")},
        classes={"medical": 3},
        shapes={"ct": (1, 16, 16), "mri": (1, 16, 16)},
    )


@pytest.fixture
def short(monkeypatch, tmp_path):
    """Make the pre-training as short as can be, in a cache of its own; counts how often it ran."""
    monkeypatch.setenv("FEDFUSE_RAY_CACHE", str(tmp_path))
    monkeypatch.setattr(public_encoders, "EFFORT", public_encoders.Effort(1, 64))
    told = []
    return told.append, told


def test_public_encoders_are_trained_once_and_then_taken(short):
    tell, told = short
    spec = public_spec()
    public_encoders.ensure(spec, tell)
    assert [text.split()[2] for text in told] == ["ct", "mri"]
    public_encoders.ensure(spec, tell)
    assert len(told) == 2
    blocks = initial_blocks(spec)
    config = spec.config.encoder_for("ct")
    state = torch.load(public_weights_path(config, "ct", (1, 16, 16)), weights_only=True)
    flat = torch.cat(
        [v.reshape(-1) for k, v in state.items() if "convolutions" in k or "norms" in k]
    )
    assert len(flat) > 100
    assert sorted(blocks["encoder/ct"][: len(flat)]) == sorted(flat.numpy())
    random = dataclasses.replace(spec, config=spec_of().config)
    assert not np.array_equal(initial_blocks(random)["encoder/ct"], blocks["encoder/ct"])


def test_public_encoders_do_not_depend_on_the_runs_seed(short):
    tell, told = short
    first, other = public_spec(), dataclasses.replace(public_spec(), seed=9)
    public_encoders.ensure(first, tell)
    public_encoders.ensure(other, tell)
    assert len(told) == 2
    count = 100  # Well inside the backbone.
    np.testing.assert_array_equal(
        initial_blocks(first)["encoder/ct"][:count], initial_blocks(other)["encoder/ct"][:count]
    )


def test_pretraining_repeats_to_the_byte(short):
    spec = public_spec()
    first, again = (public_encoders._pretrain(spec, "ct") for _ in range(2))
    assert first == again


def test_another_architecture_is_trained_anew(short):
    paths = {
        public_weights_path(EncoderConfig(**kind), modality, shape)
        for kind in ({"width": 4}, {"width": 8}, {"kind": "resnet50"})
        for modality in ("ct", "mri")
        for shape in ((1, 16, 16), (1, 32, 32))
    }
    assert len(paths) == 12


def test_a_frozen_public_encoder_is_the_one_that_was_trained(short):
    spec = public_spec(trainable=False)
    public_encoders.ensure(spec)
    path = public_weights_path(spec.config.encoder_for("ct"), "ct", (1, 16, 16))
    trained = torch.load(path, weights_only=True)
    taken = frozen_backbone(spec, "ct").state_dict()
    assert {name.removeprefix("backbone.") for name in taken} == {
        name.removeprefix("backbone.") for name in trained
    }
    for name, tensor in taken.items():
        assert torch.equal(tensor, trained[name])


def test_a_modality_without_a_forward_model_has_no_public_encoder(short):
    spec = dataclasses.replace(
        public_spec(), domains={"medical": ("pet",)}, shapes={"pet": (1, 16, 16)}
    )
    with pytest.raises(InputError, match=r"pet.*public.*phantoms exist for"):
        public_encoders.ensure(spec)


def test_public_weights_that_were_never_trained_are_missed(short):
    with pytest.raises(InputError, match="no such file"):
        initial_blocks(public_spec())
