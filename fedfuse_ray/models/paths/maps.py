"""Paths on which modalities meet on one grid, as raw inputs or as feature maps."""

from __future__ import annotations

import torch
from torch import nn

from fedfuse_ray.models.encoders.cnn import grid_after
from fedfuse_ray.models.paths.owner import Inputs, Owner, equal_weights
from fedfuse_ray.models.spec import ModelSpec, early_block, shared_block


class Early:
    """The raw inputs of all of the domain's modalities, stacked, go through one encoder."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self._grid = input_grid(owner.spec)
        self._channels = {m: owner.spec.shapes[m][0] for m in owner.siblings}

    def embed(self, inputs: Inputs) -> torch.Tensor:
        """Stack raw inputs on one grid, zeros where nothing is owned: [B, sum of C, H, W]."""
        some = next(iter(inputs.values()))
        planes = []
        for modality, channels in self._channels.items():
            if modality in self.owner.modalities:
                planes.append(on_grid(inputs[modality], self._grid))
            else:
                planes.append(some.new_zeros(len(some), channels, *self._grid))
        return torch.cat(planes, dim=1)

    def classify(
        self, embedded: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode the planes of what is shown, and classify."""
        shown = mask.to(embedded.dtype)
        by_plane = []
        for modality, channels in self._channels.items():
            if modality in self.owner.modalities:
                column = shown[:, self.owner.modalities.index(modality)]
            else:
                column = torch.zeros_like(shown[:, 0])
            by_plane.append(column[:, None].expand(-1, channels))
        planes = torch.cat(by_plane, dim=1)[:, :, None, None]
        encoded = self.owner.blocks[early_block(self.owner.domain)](embedded * planes)
        return self.owner.head()(encoded), equal_weights(mask, embedded.dtype)


class Intermediate:
    """Feature maps of the modalities present are averaged; the domain's stages go on from there.

    Where to fuse is a choice of depth: Ramachandram and Taylor, 2017, IEEE SPM 34(6), 96-108. The
    mean forces the maps of all modalities into one form, and works when some are absent.
    """

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self._grid = grid_after(input_grid(owner.spec), owner.spec.depth)

    def embed(self, inputs: Inputs) -> torch.Tensor:
        """Compute each modality's feature maps on one grid: [B, M, C, H, W]."""
        maps = [self.owner.encoder(m)(inputs[m]) for m in self.owner.modalities]
        return torch.stack([on_grid(each, self._grid) for each in maps], dim=1)

    def classify(
        self, embedded: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Average the maps of what is shown, and classify."""
        weights = equal_weights(mask, embedded.dtype)
        fused = torch.einsum("bm,bmchw->bchw", weights, embedded)
        return self.owner.head()(self.owner.blocks[shared_block(self.owner.domain)](fused)), weights


def input_grid(spec: ModelSpec) -> tuple[int, int]:
    """Return the common grid of raw inputs: the largest image, or a square that holds a signal."""
    images = [shape[1:] for shape in spec.shapes.values() if len(shape) == 3]
    if images:
        height, width = max(images)
        return height, width
    side = int(max(shape[1] for shape in spec.shapes.values()) ** 0.5)
    return side, side


def on_grid(images: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Resize images; fold signals row by row onto the grid."""
    if images.ndim == 3:
        cells = grid[0] * grid[1]
        images = nn.functional.interpolate(images, size=cells, mode="linear")
        return images.reshape(len(images), images.shape[1], *grid)
    if images.shape[2:] == grid:
        return images
    return nn.functional.interpolate(images, size=grid, mode="bilinear")
