"""Weights that encoders start from: torchvision's, and a local file's."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import models

from fedfuse_ray.config.settings.model import EncoderConfig
from fedfuse_ray.errors import InputError
from fedfuse_ray.models.encoders import build_backbone, load_backbone_weights
from fedfuse_ray.models.initial import frozen_backbone, initial_blocks
from tests.support.federations import spec_of

SHAPE = (3, 32, 32)
WEIGHTS = {
    "efficientnet_b0": models.EfficientNet_B0_Weights.IMAGENET1K_V1,
    "resnet50": models.ResNet50_Weights.IMAGENET1K_V2,
    "vgg16": models.VGG16_BN_Weights.IMAGENET1K_V1,
}


def download(monkeypatch, folder, kind):
    """Put a file where torchvision would have put its download; returns its tensors."""
    weights = WEIGHTS[kind]
    torch.manual_seed(3)
    network = models.get_model(weights.__class__.__name__.removesuffix("_Weights").lower())
    state = network.state_dict()
    for name, tensor in state.items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif name.endswith("running_mean"):
            tensor.normal_()
    monkeypatch.setenv("TORCH_HOME", str(folder))
    path = folder / "hub" / "checkpoints" / Path(weights.url).name
    path.parent.mkdir(parents=True)
    torch.save(state, path)
    return network.eval()


def loaded(kind, shape=SHAPE, *, trainable=True):
    config = EncoderConfig(kind=kind, weights="torchvision", trainable=trainable)
    torch.manual_seed(0)
    backbone = build_backbone(config, shape)
    load_backbone_weights(backbone, config, "rgb", shape)
    return backbone.eval()


HEAVY = pytest.param("vgg16", marks=pytest.mark.slow)  # Its classifier alone is half a gigabyte.


def features_of(network, kind, images):
    """Torchvision's own features, pooled, at the scale that our backbones feed their bodies."""
    with torch.no_grad():
        x = images * 4 - 2
        if kind == "resnet50":
            for name, layer in network.named_children():
                if name in ("avgpool", "fc"):
                    break
                x = layer(x)
        else:
            x = network.features(x)
        return x.mean(dim=(2, 3))


@pytest.mark.parametrize("kind", ["efficientnet_b0", "resnet50", HEAVY])
def test_a_frozen_backbone_gives_torchvisions_own_features(monkeypatch, tmp_path, kind):
    network = download(monkeypatch, tmp_path, kind)
    images = torch.rand(2, *SHAPE)
    with torch.no_grad():
        got = loaded(kind, trainable=False)(images)
    torch.testing.assert_close(got, features_of(network, kind, images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["efficientnet_b0", "resnet50", HEAVY])
def test_a_trainable_backbone_takes_all_but_the_statistics(monkeypatch, tmp_path, kind):
    network = download(monkeypatch, tmp_path, kind)
    taken = {tuple(p.shape): p for p in network.parameters()}
    backbone = loaded(kind)
    assert not any("running" in name for name in backbone.state_dict())
    known = [p for p in backbone.parameters() if tuple(p.shape) in taken]
    assert len(known) == len(list(backbone.parameters()))
    sums = sorted(float(p.detach().double().sum()) for p in backbone.parameters())
    all_sums = sorted(float(p.detach().double().sum()) for p in network.parameters())
    assert set(np.round(sums, 6)) <= set(np.round(all_sums, 6))


def test_grey_images_take_the_mean_of_the_stems_colours(monkeypatch, tmp_path):
    network = download(monkeypatch, tmp_path, "efficientnet_b0")
    grey = loaded("efficientnet_b0", (1, 32, 32))
    colour = loaded("efficientnet_b0")
    image = torch.rand(1, 1, 32, 32)
    stem = next(m for m in grey.modules() if isinstance(m, torch.nn.Conv2d))
    whole = next(m for m in network.modules() if isinstance(m, torch.nn.Conv2d))
    torch.testing.assert_close(stem.weight, whole.weight.sum(dim=1, keepdim=True))
    with torch.no_grad():  # Grey shown to the grey stem is grey shown in three channels.
        torch.testing.assert_close(
            grey(image), colour(image.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-3
        )


def test_a_download_that_fails_says_where_the_file_goes(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(InputError, match=r"no route to host.*TORCH_HOME/hub/checkpoints"):
        loaded("efficientnet_b0")


def test_there_are_none_of_torchvisions_for_the_small_cnn():
    with pytest.raises(InputError, match=r"rgb.*torchvision"):
        loaded("cnn")


# A local file.


def from_file(path, shape=SHAPE, width=4):
    config = EncoderConfig(weights=str(path), width=width)
    backbone = build_backbone(config, shape)
    load_backbone_weights(backbone, config, "rgb", shape)
    return backbone


def test_a_files_weights_are_taken_as_they_are(tmp_path):
    torch.manual_seed(1)
    source = build_backbone(EncoderConfig(width=4), SHAPE)
    torch.save(source.state_dict(), tmp_path / "w.pt")
    back = from_file(tmp_path / "w.pt").state_dict()
    for name, tensor in source.state_dict().items():
        assert torch.equal(back[name], tensor)


def test_a_trainable_encoder_starts_from_its_file_and_a_frozen_one_is_it(tmp_path):
    torch.manual_seed(1)
    source = build_backbone(EncoderConfig(width=4), (1, 16, 16))
    torch.save(source.state_dict(), tmp_path / "w.pt")
    flat = torch.cat([p.detach().reshape(-1) for p in source.parameters()]).numpy()
    weights = {"ct": EncoderConfig(width=4, weights=str(tmp_path / "w.pt"))}
    spec = spec_of()
    spec = dataclasses.replace(spec, config=spec.config.model_copy(update={"encoders": weights}))
    block = initial_blocks(spec)["encoder/ct"]
    np.testing.assert_array_equal(block[: len(flat)], flat)
    assert not np.array_equal(initial_blocks(spec_of())["encoder/ct"], block)
    frozen = {"ct": weights["ct"].model_copy(update={"trainable": False})}
    spec = dataclasses.replace(spec, config=spec.config.model_copy(update={"encoders": frozen}))
    for name, tensor in frozen_backbone(spec, "ct").state_dict().items():
        assert torch.equal(tensor, source.state_dict()[name])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        (b"not a checkpoint", "not a state dict"),
        ([1, 2], "must hold a state dict"),
        ({"x": 3}, "must hold a state dict"),
        ({"x": torch.zeros(2)}, "has no tensor"),
    ],
)
def test_a_file_that_holds_no_such_weights_is_refused(tmp_path, content, said):
    path = tmp_path / "w.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(InputError, match=said) as caught:
        from_file(path)
    assert "rgb" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_another_width_are_refused(tmp_path):
    torch.save(build_backbone(EncoderConfig(width=8), SHAPE).state_dict(), tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"has shape \[8, 3, 5, 5\] where \[4, 3, 5, 5\]"):
        from_file(tmp_path / "w.pt")


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"x": Evil()}, tmp_path / "w.pt")
    with pytest.raises(InputError, match="not a state dict"):
        from_file(tmp_path / "w.pt")
    assert not (tmp_path / "ran").exists()


def test_before_an_intermediate_fusion_an_encoders_first_stages_are_loaded(tmp_path):
    donor = build_backbone(EncoderConfig(width=4), (1, 16, 16))
    torch.save(donor.state_dict(), tmp_path / "cnn.pt")
    spec = spec_of("intermediate", depth=2, weights=str(tmp_path / "cnn.pt"))
    one = dataclasses.replace(
        spec,
        domains={"medical": ("ct",)},
        classes={"medical": 3},
        shapes={"ct": (1, 16, 16)},
    )
    wanted = [
        p for part in (donor.convolutions, donor.norms) for m in part[:2] for p in m.parameters()
    ]
    flat = torch.cat([p.detach().reshape(-1) for p in wanted]).numpy()
    np.testing.assert_array_equal(initial_blocks(one)["encoder/ct"], flat)
