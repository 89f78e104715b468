"""The small CNN: three convolutions with GroupNorm, and a coarse grid kept for positions.

GroupNorm: Wu and He, 2018, arXiv 1803.08494. The pooled grid keeps where a feature was seen (a
diffraction ring's radius, a spectral line's position), which global pooling would lose.
"""

from __future__ import annotations

import torch
from torch import nn

from fedfuse_ray.config.settings.model import EncoderConfig

_GRID = 4
_BINS = 16


class _Stages(nn.Module):
    """Convolution, GroupNorm and ReLU, once for each of some convolutions."""

    def __init__(self, convolutions: list[nn.Module]) -> None:
        super().__init__()
        widths = [int(c.out_channels) for c in convolutions]  # type: ignore[arg-type]
        self.convolutions = nn.ModuleList(convolutions)
        self.norms = nn.ModuleList([nn.GroupNorm(_groups(w), w) for w in widths])

    def run(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, C, ...] to the last stage's feature maps."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = torch.relu(norm(convolution(x)))
        return x


class SmallCnn(_Stages):
    """Three convolutions over an image or a signal, then a pooled grid of so many cells."""

    def __init__(self, convolutions: list[nn.Module], pool: nn.Module, cells: int) -> None:
        super().__init__(convolutions)
        self.pool = pool
        self.features = int(convolutions[-1].out_channels) * cells  # type: ignore[arg-type]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map [B, C, H, W] or [B, C, L] with values in [0, 1] to [B, features]."""
        return self.pool(self.run(images * 2 - 1)).flatten(1)


class FirstStages(_Stages):
    """The small CNN's stages up to a depth: from images or signals to feature maps."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map [B, C, H, W] or [B, C, L] with values in [0, 1] to feature maps."""
        return self.run(images * 2 - 1)


class LastStages(_Stages):
    """The two-dimensional CNN's stages after a depth, and the pooled grid; possibly no stage."""

    def __init__(self, convolutions: list[nn.Module], features: int) -> None:
        super().__init__(convolutions)
        self.pool = nn.AdaptiveAvgPool2d(_GRID)
        self.features = features

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map feature maps [B, C, H, W] to [B, features]."""
        return self.pool(self.run(maps)).flatten(1)


def first_stages(config: EncoderConfig, shape: tuple[int, ...], depth: int) -> FirstStages:
    """Return the stages before the fusion, for [C, H, W] or [C, L]."""
    return FirstStages(list(small_cnn(config, shape).convolutions[:depth]))


def last_stages(config: EncoderConfig, depth: int) -> LastStages:
    """Return the stages after the fusion, over feature maps that `depth` stages have made."""
    whole = small_cnn(config, (1, _GRID, _GRID))
    return LastStages(list(whole.convolutions[depth:]), whole.features)


def grid_after(grid: tuple[int, int], depth: int) -> tuple[int, int]:
    """Return the size of an image's feature maps after `depth` stages: two of them halve it."""
    halvings = 2 ** min(depth, 2)
    return -(-grid[0] // halvings), -(-grid[1] // halvings)


def small_cnn(config: EncoderConfig, shape: tuple[int, ...]) -> SmallCnn:
    """Return the two-dimensional form for [C, H, W], or the one-dimensional one for [C, L]."""
    width, signal = config.width, len(shape) == 2
    kind, (first, second) = (nn.Conv1d, (9, 5)) if signal else (nn.Conv2d, (5, 3))
    convolutions: list[nn.Module] = [
        kind(shape[0], width, first, stride=2, padding=first // 2),
        kind(width, 2 * width, second, stride=2, padding=second // 2),
        kind(2 * width, 4 * width, 3, padding=1),
    ]
    if signal:
        return SmallCnn(convolutions, nn.AdaptiveAvgPool1d(_BINS), _BINS)
    return SmallCnn(convolutions, nn.AdaptiveAvgPool2d(_GRID), _GRID * _GRID)


def _groups(channels: int) -> int:
    return next(g for g in (4, 2, 1) if channels % g == 0)
