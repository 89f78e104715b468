"""ResNet-50, VGG-16 and EfficientNet-B0 from torchvision, made fit for per-sample gradients.

BatchNorm becomes GroupNorm, in-place operations and random depth are removed, and the classifier
is dropped: what remains maps [B, C, H, W] to globally pooled features. Only a frozen backbone with
ImageNet weights keeps its BatchNorm, which in evaluation mode is a fixed scale and shift.

He et al., 2016, arXiv 1512.03385; Simonyan and Zisserman, 2015, arXiv 1409.1556; Tan and Le, 2019,
arXiv 1905.11946.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn
from torchvision import models
from torchvision.models import vgg
from torchvision.models.resnet import Bottleneck

_GROUP_SIZE = 16
_Norm = Callable[[int], nn.Module]


class ImagenetBackbone(nn.Module):
    """A torchvision network's feature extractor."""

    def __init__(self, body: nn.Module, features: int) -> None:
        super().__init__()
        self.body = body
        self.features = features

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map [B, C, H, W] with values in [0, 1] to [B, features]."""
        return self.body(images * 4 - 2).mean(dim=(2, 3))


class _PureBottleneck(Bottleneck):
    """ResNet's bottleneck with an out-of-place residual sum."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = torch.relu(self.bn1(self.conv1(x)))
        out = torch.relu(self.bn2(self.conv2(out)))
        return torch.relu(self.bn3(self.conv3(out)) + identity)


def build_backbone(name: str, channels: int, *, batch_norm: bool = False) -> nn.Module:
    """Return `resnet50`, `vgg16` or `efficientnet_b0` with random weights, for so many channels.

    BatchNorm may be kept for a frozen backbone in evaluation mode.
    """
    norm: _Norm = nn.BatchNorm2d if batch_norm else _group_norm
    body, features = _BODIES[name](norm)
    _replace(body, channels, norm)
    return ImagenetBackbone(body, features)


def torchvision_state(name: str) -> dict[str, torch.Tensor]:
    """Return torchvision's ImageNet weights under this module's names; downloads them once.

    Raises:
        OSError: They can't be downloaded and are not in torch's cache.
    """
    kind, weights, prefix = _WEIGHTS[name]
    full = models.get_model(kind, weights=weights).state_dict()
    if name == "resnet50":
        full = {_resnet_name(key): value for key, value in full.items()}
        prefix = ""
    return {
        "body." + key.removeprefix(prefix): value
        for key, value in full.items()
        if key.startswith(prefix) and not key.startswith(("fc.", "classifier."))
    }


_STAGES = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")


def _resnet_name(key: str) -> str:
    stage, _, rest = key.partition(".")
    return f"{_STAGES.index(stage)}.{rest}" if stage in _STAGES else key


def _resnet50(norm: _Norm) -> tuple[nn.Module, int]:
    net = models.ResNet(_PureBottleneck, [3, 4, 6, 3], norm_layer=norm)
    return nn.Sequential(*[getattr(net, stage) for stage in _STAGES]), 2048


def _vgg16(norm: _Norm) -> tuple[nn.Module, int]:
    # The classifier, nine tenths of VGG-16, would be built only to be dropped.
    features = vgg.make_layers(vgg.cfgs["D"], batch_norm=True)
    for module in features.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(cast(torch.Tensor, module.bias))
    return features, 512


def _efficientnet_b0(norm: _Norm) -> tuple[nn.Module, int]:
    build: Callable[..., Any] = functools.partial(models.efficientnet_b0, norm_layer=norm)
    return build(stochastic_depth_prob=0.0).features, 1280


_BODIES: dict[str, Callable[[_Norm], tuple[nn.Module, int]]] = {
    "resnet50": _resnet50,
    "vgg16": _vgg16,
    "efficientnet_b0": _efficientnet_b0,
}
_WEIGHTS = {
    "resnet50": ("resnet50", "IMAGENET1K_V2", ""),
    "vgg16": ("vgg16_bn", "IMAGENET1K_V1", "features."),
    "efficientnet_b0": ("efficientnet_b0", "IMAGENET1K_V1", "features."),
}


def _group_norm(channels: int) -> nn.Module:
    """Return GroupNorm with groups of about 16 channels, at least one group."""
    groups = max(1, channels // _GROUP_SIZE)
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels)


def _replace(module: nn.Module, channels: int, norm: _Norm) -> None:
    """Swap norms, in-place activations, and the first convolution's number of inputs."""
    first = next(m for m in module.modules() if isinstance(m, nn.Conv2d))
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, norm(child.num_features))
            elif getattr(child, "inplace", False):
                setattr(child, "inplace", False)  # noqa: B010, torch types attributes as modules
            elif child is first and channels != first.in_channels:
                setattr(parent, name, _conv_like(first, channels))


def _conv_like(conv: nn.Conv2d, channels: int) -> nn.Conv2d:
    kernel: Any = conv.kernel_size
    stride: Any = conv.stride
    padding: Any = conv.padding
    bias = conv.bias is not None
    return nn.Conv2d(channels, conv.out_channels, kernel, stride, padding, bias=bias)
