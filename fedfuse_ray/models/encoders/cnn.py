"""The small CNN: three convolutions with GroupNorm, and a coarse grid kept for positions.

GroupNorm: Wu and He, 2018, arXiv 1803.08494. The pooled grid keeps where a feature was seen (a
diffraction ring's radius, a spectral line's position), which global pooling would lose.
"""

from __future__ import annotations

import torch
from torch import nn

from fedfuse_ray.config.model import EncoderConfig

_GRID = 4
_BINS = 16


class SmallCnn(nn.Module):
    """Convolutions of stride 2 over an image or a signal, then a pooled grid.

    Args:
        convolutions: The three convolutions.
        pool: Pools to the grid.
        cells: Cells of the grid.
    """

    def __init__(self, convolutions: list[nn.Module], pool: nn.Module, cells: int) -> None:
        super().__init__()
        widths = [int(c.out_channels) for c in convolutions]  # type: ignore[arg-type]
        self.convolutions = nn.ModuleList(convolutions)
        self.norms = nn.ModuleList([nn.GroupNorm(_groups(w), w) for w in widths])
        self.pool = pool
        self.features = widths[-1] * cells

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map [B, C, H, W] or [B, C, L] with values in [0, 1] to [B, features]."""
        x = images * 2 - 1
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = torch.relu(norm(convolution(x)))
        return self.pool(x).flatten(1)


def image_cnn(config: EncoderConfig, shape: tuple[int, ...]) -> nn.Module:
    """Return the two-dimensional form for [C, H, W]."""
    width = config.width
    return SmallCnn(
        [
            nn.Conv2d(shape[0], width, 5, stride=2, padding=2),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.Conv2d(2 * width, 4 * width, 3, padding=1),
        ],
        nn.AdaptiveAvgPool2d(_GRID),
        _GRID * _GRID,
    )


def signal_cnn(config: EncoderConfig, shape: tuple[int, ...]) -> nn.Module:
    """Return the one-dimensional form for [C, L]."""
    width = config.width
    return SmallCnn(
        [
            nn.Conv1d(shape[0], width, 9, stride=2, padding=4),
            nn.Conv1d(width, 2 * width, 5, stride=2, padding=2),
            nn.Conv1d(2 * width, 4 * width, 3, padding=1),
        ],
        nn.AdaptiveAvgPool1d(_BINS),
        _BINS,
    )


def _groups(channels: int) -> int:
    return next(g for g in (4, 2, 1) if channels % g == 0)
