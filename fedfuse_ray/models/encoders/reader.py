"""A backbone that ends in the physical factors that it reads off an image.

The factors are few, and they hold all that matters of an image. Few features need few parameters,
and under differential privacy few parameters mean little noise: its norm grows with the square root
of their number.
"""

from __future__ import annotations

import torch
from torch import nn

FACTORS = 3


class FactorReader(nn.Module):
    """A backbone, then a linear layer to the factors of the modality's domain.

    Args:
        backbone: Maps images to [B, F].
        features: F.
    """

    def __init__(self, backbone: nn.Module, features: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.reader = nn.Linear(features, FACTORS)
        self.features = FACTORS

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map [B, *shape] to estimated factors [B, 3]; a hidden factor is read as about zero."""
        return self.reader(self.backbone(images))
