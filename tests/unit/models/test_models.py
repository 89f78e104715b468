"""The CrossModalNet: its flat vector, its blocks, and where they come from."""

from __future__ import annotations

import dataclasses
import itertools
from typing import get_args

import numpy as np
import pytest
import torch

from fedfuse_ray.config import FusionKind
from fedfuse_ray.federation.institution.tensors import BackboneCache
from fedfuse_ray.models.initial import frozen_backbone, initial_blocks
from fedfuse_ray.models.net import CrossModalNet
from tests.support.federations import random_blocks, spec_of


def net_of(spec=None, domain="medical", modalities=("ct", "mri")):
    return CrossModalNet(spec or spec_of(), domain, modalities)


def sizes(net):
    return {name: stop - start for name, (start, stop) in net.offsets.items()}


def test_the_flat_vector_is_the_parameters():
    net = net_of()
    assert net.flat.numel() == sum(p.numel() for p in net.parameters())
    with torch.no_grad():
        net.flat.fill_(0.25)
    assert all(bool((p == 0.25).all()) for p in net.parameters())
    first = next(net.parameters())
    with torch.no_grad():
        first.zero_()
    assert int((net.flat == 0).sum()) == first.numel()


def test_autograd_writes_into_the_flat_gradient():
    net = net_of()
    logits, _ = net.classify(
        net.embed({m: torch.rand(2, 1, 16, 16) for m in ("ct", "mri")}),
        torch.ones(2, 2, dtype=torch.bool),
    )
    for _ in range(2):
        net.gradient.zero_()
        logits.sum().backward(retain_graph=True)
        joined = torch.cat([p.grad.reshape(-1) for p in net.parameters()])
        assert torch.equal(joined, net.gradient)
        assert net.gradient.abs().sum() > 0


def test_blocks_cover_the_vector_without_overlap():
    net = net_of()
    spans = list(net.offsets.values())
    assert spans[0][0] == 0
    assert spans[-1][1] == net.flat.numel()
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))
    assert tuple(net.offsets) == net.names


def test_blocks_come_back_as_they_were_set():
    net = net_of()
    blocks = random_blocks(sizes(net))
    net.set_blocks(blocks | {"head/others": np.zeros(3, np.float32)})
    back = net.get_blocks()
    assert back.keys() == blocks.keys()
    for name, vector in blocks.items():
        np.testing.assert_array_equal(back[name], vector)
    assert torch.equal(net.join(blocks), net.flat)


def test_blocks_handed_out_are_copies():
    net = net_of()
    blocks = net.get_blocks()
    blocks["fusion"][:] = 99
    assert not bool((net.flat == 99).any())
    with torch.no_grad():
        net.flat.fill_(7)
    assert not (net.get_blocks()["fusion"] == blocks["fusion"]).any()


def test_a_block_of_the_wrong_size_is_not_taken_in_silence():
    net = net_of()
    blocks = net.get_blocks()
    blocks["fusion"] = blocks["fusion"][:-1]
    with pytest.raises(RuntimeError, match="size"):
        net.set_blocks(blocks)


def test_read_only_blocks_are_taken():
    net = net_of()
    blocks = net.get_blocks()
    for vector in blocks.values():
        vector.flags.writeable = False
    net.set_blocks(blocks)
    net.join(blocks)


@pytest.mark.parametrize("fusion", get_args(FusionKind))
def test_initial_blocks_are_those_of_the_network(fusion):
    spec = spec_of(fusion)
    initial = initial_blocks(spec)
    for domain, modalities in spec.domains.items():
        net = net_of(spec, domain, modalities)
        assert {name: initial[name].size for name in net.names} == sizes(net)
    assert all(vector.dtype == np.float32 for vector in initial.values())


def test_a_blocks_first_weights_do_not_depend_on_who_else_takes_part():
    spec = spec_of()
    smaller = dataclasses.replace(
        spec,
        domains={"medical": ("mri",)},
        classes={"medical": 3},
        shapes={"mri": (1, 16, 16)},
    )
    whole, part = initial_blocks(spec), initial_blocks(smaller)
    assert set(part) == {"encoder/mri", "fusion", "head/medical"}
    for name, vector in part.items():
        np.testing.assert_array_equal(vector, whole[name])


def test_first_weights_depend_on_the_seed_and_the_name_only():
    first, again = initial_blocks(spec_of()), initial_blocks(spec_of())
    other = initial_blocks(spec_of(seed=1))
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
        assert not np.array_equal(first[name], other[name])
    assert not np.array_equal(first["encoder/ct"], first["encoder/mri"])


def test_building_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    initial_blocks(spec_of(trainable=False))
    frozen_backbone(spec_of(trainable=False), "ct")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_frozen_encoder_sends_its_projection_only():
    trainable, frozen = initial_blocks(spec_of()), initial_blocks(spec_of(trainable=False))
    spec = spec_of(trainable=False)
    features = frozen_backbone(spec, "ct").features
    assert frozen["encoder/ct"].size == (features + 1) * spec.config.embedding_dim
    assert trainable["encoder/ct"].size > frozen["encoder/ct"].size
    assert frozen["fusion"].size == trainable["fusion"].size


def test_frozen_features_equal_a_direct_forward(monkeypatch):
    spec = spec_of(trainable=False)
    for modality, shape in spec.shapes.items():
        images = torch.rand(5, *shape).half()
        got = BackboneCache(spec).features(modality, images, torch.device("cpu"))
        backbone = frozen_backbone(spec, modality)
        assert not any(p.requires_grad for p in backbone.parameters())
        with torch.no_grad():
            wanted = backbone(images.float())
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
        none = BackboneCache(spec).features(modality, images[:0], torch.device("cpu"))
        assert none.shape == (0, wanted.shape[1])


def test_frozen_features_do_not_depend_on_the_chunk():
    spec, images = spec_of(trainable=False), torch.rand(9, 1, 16, 16).half()
    whole = BackboneCache(spec).features("ct", images, torch.device("cpu"))
    chunked = BackboneCache(spec).features("ct", images, torch.device("cpu"), chunk=4)
    torch.testing.assert_close(chunked, whole, rtol=1e-5, atol=1e-6)


def test_an_encoder_of_one_modality_may_differ_from_the_rest():
    from fedfuse_ray.config.settings.model import EncoderConfig

    spec = spec_of()
    config = spec.config.model_copy(update={"encoders": {"mri": EncoderConfig(width=8)}})
    other = dataclasses.replace(spec, config=config)
    assert initial_blocks(other)["encoder/mri"].size > initial_blocks(spec)["encoder/mri"].size
    assert initial_blocks(other)["encoder/ct"].size == initial_blocks(spec)["encoder/ct"].size
