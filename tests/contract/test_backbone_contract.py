"""What every backbone keeps to: one vector an image, and gradients sample by sample."""

from __future__ import annotations

import copy
from typing import get_args

import pytest
import torch
from torch import nn

from fedfuse_ray.config.settings.model import EncoderConfig, EncoderKind
from fedfuse_ray.models.encoders import BACKBONES, build_backbone, feature_count

CASES = {
    "cnn": ("cnn", (1, 16, 16)),
    "cnn, colour": ("cnn", (3, 32, 32)),
    "cnn, signal": ("cnn", (1, 64)),
    "resnet50": ("resnet50", (1, 32, 32)),
    "vgg16": ("vgg16", (3, 32, 32)),
    "efficientnet_b0": ("efficientnet_b0", (1, 32, 32)),
    "timm, EfficientNet": ("timm/test_efficientnet", (3, 32, 32)),
    "timm, ResNet": ("timm/test_resnet", (1, 32, 32)),
    "minirocket": ("minirocket", (1, 64)),
}
FIXED = ("minirocket",)
"""Kinds with nothing to train: no gradients, and buffers instead of parameters."""


@pytest.fixture(scope="module", params=CASES)
def case(request):
    kind, _, name = CASES[request.param][0].partition("/")
    if kind == "timm":
        pytest.importorskip("timm", reason="the extra `pretrained` is not installed")
    shape = CASES[request.param][1]
    torch.manual_seed(0)
    config = EncoderConfig(kind=kind, width=4, name=name or None, trainable=kind not in FIXED)
    return build_backbone(config, shape), shape


def batch(shape, count=3):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, *shape, generator=generator)


def test_every_kind_of_the_config_has_a_backbone():
    assert set(get_args(EncoderKind)) == set(BACKBONES)
    assert {kind.partition("/")[0] for kind, _ in CASES.values()} == set(BACKBONES)


def test_one_forward(case):
    backbone, shape = case
    with torch.no_grad():
        features = backbone(batch(shape))
    assert features.shape == (3, feature_count(backbone))
    assert torch.isfinite(features).all()
    assert features.std(dim=0).abs().max() > 1e-6


def test_no_batch_norm_and_nothing_in_place(case):
    backbone, _ = case
    for name, module in backbone.named_modules():
        assert not isinstance(module, nn.modules.batchnorm._NormBase), name
        assert not getattr(module, "inplace", False), name
        assert not isinstance(module, nn.Dropout), name
    assert not (dict(backbone.named_buffers()) and dict(backbone.named_parameters()))


def test_the_input_is_not_changed(case):
    backbone, shape = case
    images = batch(shape)
    before = images.clone()
    backbone(images)
    assert torch.equal(images, before)


def test_a_forward_draws_nothing_at_random_and_is_the_same_in_training(case):
    backbone, shape = case
    state = torch.random.get_rng_state()
    with torch.no_grad():
        first = backbone.train()(batch(shape))
        again = backbone.eval()(batch(shape))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.testing.assert_close(first, again)


def test_a_sample_does_not_feel_its_batch(case):
    backbone, shape = case
    images = batch(shape)
    with torch.no_grad():
        whole = backbone(images)
        alone = torch.cat([backbone(image[None]) for image in images])
    torch.testing.assert_close(alone, whole, rtol=1e-3, atol=1e-4)


def test_gradients_sample_by_sample_are_those_of_each_sample_alone(case):
    if not dict(case[0].named_parameters()):
        pytest.skip("nothing to train")
    # In double precision: through fifty layers single precision leaves few digits to compare.
    backbone, shape = copy.deepcopy(case[0]).double(), case[1]
    parameters = {name: p.detach() for name, p in backbone.named_parameters()}
    images = batch(shape, 2).double()

    def loss(values, image):
        return torch.func.functional_call(backbone, values, (image[None],)).square().mean()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, images)
    for index, image in enumerate(images):
        backbone.zero_grad()
        backbone(image[None]).square().mean().backward()
        for name, parameter in backbone.named_parameters():
            torch.testing.assert_close(each[name][index], parameter.grad, rtol=1e-6, atol=1e-9)
    assert any(bool((g[0] != g[1]).any()) for g in each.values())
