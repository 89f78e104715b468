"""Any image network of timm, made fit for per-sample gradients.

Wightman, 2019, PyTorch Image Models, github.com/huggingface/pytorch-image-models. BatchNorm becomes
GroupNorm, in-place operations, dropout and random depth are removed, and the classifier is
dropped. Only a frozen backbone with loaded weights keeps its BatchNorm, which in evaluation mode is
a fixed scale and shift.
"""

from __future__ import annotations

import difflib

import torch
from torch import nn

from fedfuse_ray.config.settings.model import EncoderConfig
from fedfuse_ray.errors import InputError
from fedfuse_ray.models.encoders.extra import check_extra, timm_library

_Channels = tuple[float, ...]
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation by channel that the package of `packaged` weights asks for."""
_GROUP_SIZE = 16


class TimmBackbone(nn.Module):
    """A network of timm without its classifier, behind what it expects of images."""

    def __init__(
        self, body: nn.Module, features: int, size: int | None, scale: tuple[_Channels, _Channels]
    ) -> None:
        super().__init__()
        self.body, self.features = body, features
        self._size, self._mean, self._std = size, tuple(scale[0]), tuple(scale[1])

    @property
    def preprocessing(self) -> tuple[object, ...]:
        """What happens to images before the network: size, means and standard deviations."""
        return self._size, self._mean, self._std

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map [B, 1 or 3, H, W] with values in [0, 1] to [B, features]; gray is repeated."""
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        if self._size is not None and images.shape[2:] != (self._size, self._size):
            images = nn.functional.interpolate(
                images, size=(self._size, self._size), mode="bicubic", antialias=True
            )
        mean = images.new_tensor(self._mean)[:, None, None]
        std = images.new_tensor(self._std)[:, None, None]
        return self.body((images - mean) / std)


class _GroupNorm(nn.GroupNorm):
    """GroupNorm in a BatchNorm's place, under its names, with the activation that was part of it.

    timm joins some norms with the activation that follows.
    """

    def __init__(self, old: nn.BatchNorm2d) -> None:
        channels = old.num_features
        groups = max(1, channels // _GROUP_SIZE)
        while channels % groups:
            groups -= 1
        super().__init__(groups, channels)
        act = getattr(old, "act", None)
        self.act = act if isinstance(act, nn.Module) else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise [B, C, H, W], and apply the activation."""
        return self.act(super().forward(x))


def timm_backbone(config: EncoderConfig, shape: tuple[int, ...]) -> TimmBackbone:
    """Return a network of timm with random weights, for images [C, H, W].

    Raises:
        InputError: The extra is not installed, there is no such network, or it takes images of one
            other size only.
    """
    field = "model.encoder"
    check_extra(config, field)
    timm, name = timm_library(), str(config.name)
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"{field}.name", name, f"timm has no such network{hint}")
    known = timm.models.get_pretrained_cfg(name)
    size = config.input_size or shape[-1]
    if known is not None and known.fixed_input_size and size != known.input_size[-1]:
        remedy = f"{name} takes {known.input_size[-1]} pixels only; set input_size to that"
        raise InputError(f"{field}.input_size", size, remedy)
    body = timm.create_model(name, pretrained=False, num_classes=0)
    keep_norms = not config.trainable and config.weights != "random"
    _make_fit(body, keep_norms)
    scale = _IMAGENET
    if config.weights != "packaged" and known is not None:
        scale = (known.mean, known.std)
    features = int(getattr(body, "head_hidden_size", None) or body.num_features)
    return TimmBackbone(body, features, config.input_size, scale)


def _make_fit(body: nn.Module, keep_norms: bool) -> None:
    """Swap norms, and take out what is random or in place."""
    for parent in list(body.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Dropout | nn.Dropout2d) or hasattr(child, "drop_prob"):
                setattr(parent, name, nn.Identity())
            elif isinstance(child, nn.BatchNorm2d) and not keep_norms:
                setattr(parent, name, _GroupNorm(child))
    for module in body.modules():
        if getattr(module, "inplace", False):
            setattr(module, "inplace", False)  # noqa: B010, torch types attributes as modules
