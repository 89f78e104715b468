"""Backbones: from an image or a signal to a feature vector, one file per family.

Every backbone that is trained is free of BatchNorm and of in-place operations, so that gradients
can be taken sample by sample. None draws a random number in its forward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

import torch
from torch import nn

from fedfuse_ray.config.settings.model import EncoderConfig
from fedfuse_ray.errors import InputError
from fedfuse_ray.models.encoders.cnn import small_cnn
from fedfuse_ray.models.encoders.extra import check_extra
from fedfuse_ray.models.encoders.minirocket import fixed_bank
from fedfuse_ray.models.encoders.pretrained import load_backbone_weights, public_weights_path
from fedfuse_ray.models.encoders.reader import FactorReader


class Backbone(Protocol):
    """A module with a known number of features."""

    features: int

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Map [B, *shape] to [B, features]."""
        ...


def _torchvision(config: EncoderConfig, shape: tuple[int, ...]) -> nn.Module:
    from fedfuse_ray.models.encoders.imagenet import build_backbone  # torchvision: 3 s

    frozen_imagenet = config.weights == "torchvision" and not config.trainable
    return build_backbone(config.kind, shape[0], batch_norm=frozen_imagenet)


def _timm(config: EncoderConfig, shape: tuple[int, ...]) -> nn.Module:
    from fedfuse_ray.models.encoders.timm_networks import timm_backbone  # timm: 4 s

    return timm_backbone(config, shape)


BACKBONES: dict[str, Callable[[EncoderConfig, tuple[int, ...]], nn.Module]] = {
    "cnn": small_cnn,
    "resnet50": _torchvision,
    "vgg16": _torchvision,
    "efficientnet_b0": _torchvision,
    "timm": _timm,
    "minirocket": fixed_bank,
}


def build_backbone(config: EncoderConfig, shape: tuple[int, ...]) -> nn.Module:
    """Return a backbone for one modality, with random weights from torch's current generator.

    One that is frozen with `public` weights ends in what it was pre-trained for, the factors.

    Args:
        config: The encoder's config.
        shape: [C, H, W], or [C, L] for a signal; see `kind_for`.

    Raises:
        InputError: The kind can't be had, or takes no such input.
    """
    backbone = BACKBONES[kind_for(config, shape)](config, shape)
    reads_factors = config.weights == "public" and not config.trainable
    return FactorReader(backbone, feature_count(backbone)) if reads_factors else backbone


def kind_for(config: EncoderConfig, shape: tuple[int, ...]) -> str:
    """Return the kind of backbone that an encoder's config means for a shape.

    Networks of images don't take signals: MiniRocket stands in for a frozen one of timm, and the
    one-dimensional CNN for all others.

    Raises:
        InputError: MiniRocket is asked for and there is an image.
    """
    signal = len(shape) == 2
    if config.kind == "minirocket" and not signal:
        remedy = f"takes signals only, not images {list(shape)}; use timm or cnn for this modality"
        raise InputError("model.encoder.kind", "minirocket", remedy)
    if not signal or config.kind == "minirocket":
        return config.kind
    return "minirocket" if config.kind == "timm" and not config.trainable else "cnn"


def feature_count(backbone: nn.Module) -> int:
    """Return the length of a backbone's feature vector."""
    return cast(Backbone, backbone).features


__all__ = [
    "BACKBONES",
    "Backbone",
    "FactorReader",
    "build_backbone",
    "check_extra",
    "feature_count",
    "kind_for",
    "load_backbone_weights",
    "public_weights_path",
]
