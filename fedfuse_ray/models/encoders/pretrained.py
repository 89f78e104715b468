"""Weights that a backbone starts from: public phantoms', a library's, or a file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import nn

from fedfuse_ray.config.settings.model import NAMED_WEIGHTS, EncoderConfig
from fedfuse_ray.errors import InputError
from fedfuse_ray.files import cache_folder
from fedfuse_ray.models.encoders.extra import hub_state, packaged_state
from fedfuse_ray.models.encoders.minirocket import MiniRocket
from fedfuse_ray.models.encoders.reader import FactorReader

_PUBLIC_VERSION = 1
_BODY = "body."
SHIPPED = Path(__file__).parent / "public"
"""Pre-trained weights that come with the package; `python -m benchmarks.pretrain` makes them."""


def public_weights_path(
    config: EncoderConfig, modality: str, shape: tuple[int, ...], origin: str = ""
) -> Path:
    """Return where the encoder pre-trained on public phantoms lies, or will lie.

    The package ships those of the presets; others are made once and kept in the cache. `origin` is
    the digest of the file that defines the modality, empty for the library's own.
    """
    named = (config.kind, config.width, shape, _PUBLIC_VERSION, *([origin] if origin else []))
    digest = hashlib.blake2b(repr(named).encode(), digest_size=6).hexdigest()
    name = f"{modality}-{config.kind}-{digest}.pt"
    shipped = SHIPPED / name
    return shipped if shipped.is_file() else cache_folder() / "encoders" / name


def load_backbone_weights(
    backbone: nn.Module,
    config: EncoderConfig,
    modality: str,
    shape: tuple[int, ...],
    origin: str = "",
) -> None:
    """Load what `config.weights` names into a backbone; `random` and MiniRocket stay as they are.

    A first convolution for another number of channels takes the mean over the loaded channels,
    scaled to keep its response. Statistics of BatchNorm have no place in GroupNorm and are left; so
    is a classifier. A file for timm has timm's names. For `origin` see `public_weights_path`.

    Raises:
        InputError: The weights can't be had, or don't fit.
    """
    field = f"model.encoder_for({modality}).weights"
    if config.weights == "random" or isinstance(backbone, MiniRocket):
        return
    if config.weights == "torchvision":
        state = _from_torchvision(config, field)
    elif config.weights == "packaged":
        state = packaged_state()
    elif config.weights == "hub":
        state = hub_state(config, field.removesuffix(".weights"))
    elif config.weights == "public":
        state = _from_file(public_weights_path(config, modality, shape, origin), field)
        if not isinstance(backbone, FactorReader):
            state = {name.removeprefix("backbone."): value for name, value in state.items()}
    else:
        state = _from_file(Path(config.weights), field)
    expected = backbone.state_dict()
    if config.kind == "timm":
        state = {f"{_BODY}{name.removeprefix(_BODY)}": value for name, value in state.items()}
        counters = {k: v for k, v in expected.items() if k.endswith("num_batches_tracked")}
        state = counters | state
    if missing := [name for name in expected if name not in state]:
        remedy = f"has no tensor {missing[0]!r}; it fits another encoder"
        raise InputError(field, config.weights, remedy)
    fitted = {name: _fit(state[name], expected[name], name, field) for name in expected}
    backbone.load_state_dict(fitted)


def _from_torchvision(config: EncoderConfig, field: str) -> dict[str, torch.Tensor]:
    if config.kind == "cnn":
        raise InputError(field, "torchvision", "there are none for `cnn`; use resnet50, ...")
    from fedfuse_ray.models.encoders.imagenet import torchvision_state

    try:
        return torchvision_state(config.kind)
    except OSError as error:
        remedy = f"the download failed ({error}); put the file into $TORCH_HOME/hub/checkpoints"
        raise InputError(field, "torchvision", remedy) from None


def _from_file(path: Path, field: str) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        remedy = f"no such file; use {', '.join(NAMED_WEIGHTS)} or a file's path"
        raise InputError(field, path, remedy) from None
    except Exception as error:  # torch raises many kinds for a file that is not a checkpoint
        raise InputError(field, path, f"is not a state dict that torch can load: {error}") from None
    if not isinstance(state, dict) or not all(torch.is_tensor(v) for v in state.values()):
        raise InputError(field, path, "must hold a state dict: names to tensors")
    return state


def _fit(loaded: torch.Tensor, expected: torch.Tensor, name: str, field: str) -> torch.Tensor:
    if loaded.shape == expected.shape:
        return loaded
    is_stem = loaded.ndim == expected.ndim >= 3 and loaded.shape[0] == expected.shape[0]
    if is_stem and loaded.shape[2:] == expected.shape[2:]:
        channels = expected.shape[1]
        mean = loaded.mean(dim=1, keepdim=True) * (loaded.shape[1] / channels)
        return mean.expand(expected.shape).clone()
    remedy = f"has shape {list(loaded.shape)} where {list(expected.shape)} is needed"
    raise InputError(field, name, remedy)
