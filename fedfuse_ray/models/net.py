"""CrossModalNet: what one owner of some modalities of one domain trains.

The parameters lie in one flat vector, block after block, so that the optimizer, the strategy's
rules and the wire see vectors and not lists of small tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from fedfuse_ray.blocks import Blocks
from fedfuse_ray.models.encoders import build_backbone, feature_count
from fedfuse_ray.models.fusion import FUSIONS
from fedfuse_ray.models.spec import (
    ENCODER,
    FUSION,
    HEAD,
    ModelSpec,
    encoder_block,
    encoder_of_block,
)

Inputs = Mapping[str, torch.Tensor]
"""Modality to images [B, *shape], or to features [B, F] where the backbone is frozen."""


class Encoder(nn.Module):
    """A backbone (identity where it is frozen) and the projection to the embedding."""

    def __init__(self, backbone: nn.Module, features: int, dim: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection = nn.Linear(features, dim)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map [B, *shape] to [B, D]."""
        return self.projection(self.backbone(inputs))


def build_block(spec: ModelSpec, name: str) -> nn.Module:
    """Return the module of one block, with weights from torch's current generator."""
    dim = spec.config.embedding_dim
    if name == FUSION:
        return FUSIONS[spec.config.fusion](dim, spec.slots)
    if name.startswith(HEAD):
        return nn.Linear(dim, spec.classes[name.removeprefix(HEAD).split("/")[0]])
    modality, tier = encoder_of_block(name)
    if modality.startswith("early/"):
        channels = sum(spec.shapes[m][0] for m in spec.domains[modality.removeprefix("early/")])
        backbone = build_backbone(spec.config.encoder, (channels, *_grid(spec)))
        return Encoder(backbone, feature_count(backbone), dim)
    config = spec.config.encoder_for(modality, tier)
    backbone = build_backbone(config, spec.shapes[modality])
    features = feature_count(backbone)
    return Encoder(nn.Identity() if spec.frozen(modality, tier) else backbone, features, dim)


class CrossModalNet(nn.Module):
    """The network of an owner of `modalities` in `domain`.

    Args:
        spec: The federation's network.
        domain: The owner's domain.
        modalities: The modalities that it owns, in its domain's order.
        tier: The tier that its encoders are of; "" for the default ones.
    """

    def __init__(
        self, spec: ModelSpec, domain: str, modalities: Sequence[str], tier: str = ""
    ) -> None:
        super().__init__()
        self.spec, self.domain, self.modalities = spec, domain, tuple(modalities)
        self.kind = spec.config.fusion
        self._slots = [spec.domains[domain].index(m) for m in self.modalities]
        self.names = spec.block_names(domain, self.modalities, tier)
        self.encoder_names = {m: encoder_block(m, tier) for m in self.modalities}
        self.blocks = nn.ModuleDict({name: build_block(spec, name) for name in self.names})
        self.mean = FUSIONS["mean"](0, 0)
        self._flatten()

    def embed(self, inputs: Inputs) -> torch.Tensor:
        """Encode every modality: [B, M, D]; for early fusion the stacked raw inputs."""
        if self.kind == "early":
            return self._stack(inputs)
        encoded = [self.blocks[self.encoder_names[m]](inputs[m]) for m in self.modalities]
        return torch.stack(encoded, dim=1)

    def classify(
        self, embedded: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Classify what `embed` returned, shown only the modalities in the mask [B, M].

        Returns:
            Log-probabilities up to a constant [B, K], and the fusion's weights [B, M].
        """
        if self.kind == "early":
            return self._classify_early(embedded, mask)
        if self.kind in ("late", "none"):
            return self._classify_late(embedded, mask)
        if self.kind == "concat":
            embedded, mask = self._in_slots(embedded), self._in_slots(mask)
        fusion = self.mean if self.kind == "mean" else self.blocks[FUSION]
        fused, weights = fusion(embedded, mask)
        if self.kind == "concat":
            weights = weights[:, self._slots]
        return self.blocks[HEAD + self.domain](fused), weights

    def set_blocks(self, blocks: Blocks) -> None:
        """Overwrite the weights."""
        with torch.no_grad():
            for name, (start, stop) in self.offsets.items():
                self.flat[start:stop].copy_(torch.tensor(blocks[name]))

    def get_blocks(self) -> Blocks:
        """Return a copy of the weights."""
        return self.split(self.flat)

    def split(self, vector: torch.Tensor) -> Blocks:
        """Cut a vector of this network's length [P] into blocks, copied."""
        whole = vector.detach().cpu().numpy()
        return {name: whole[start:stop].copy() for name, (start, stop) in self.offsets.items()}

    def join(self, blocks: Blocks) -> torch.Tensor:
        """Return blocks as one vector [P], on the network's device."""
        joined = torch.cat([torch.tensor(blocks[name]) for name in self.names])
        return joined.to(self.flat.device)

    def on(self, device: torch.device) -> CrossModalNet:
        """Move to a device; the flat vector stays the parameters' storage."""
        if device != self.flat.device:
            self.to(device)
            self._flatten()
        return self

    def _in_slots(self, own: torch.Tensor) -> torch.Tensor:
        """Spread [B, M, ...] over the domain's modalities, zero where this owner has none.

        `concat` reads a modality at its place, which must be the same at every owner.
        """
        places = len(self.spec.domains[self.domain])
        columns = [torch.zeros_like(own[:, 0])] * places
        for index, slot in enumerate(self._slots):
            columns[slot] = own[:, index]
        return torch.stack(columns, dim=1)

    def _flatten(self) -> None:
        parameters = [list(self.blocks[name].parameters()) for name in self.names]
        self.offsets: dict[str, tuple[int, int]] = {}
        offset = 0
        for name, group in zip(self.names, parameters, strict=True):
            size = sum(p.numel() for p in group)
            self.offsets[name] = (offset, offset + size)
            offset += size
        every = [p for group in parameters for p in group]
        self.flat = torch.cat([p.detach().reshape(-1) for p in every])
        self.gradient = torch.zeros_like(self.flat)
        offset = 0
        for p in every:
            end = offset + p.numel()
            p.data = self.flat[offset:end].view(p.shape)
            p.grad = self.gradient[offset:end].view(p.shape)
            offset = end

    def _stack(self, inputs: Inputs) -> torch.Tensor:
        """Raw inputs of all the domain's modalities on one grid: [B, sum of C, S, S]."""
        some = next(iter(inputs.values()))
        planes = []
        for modality in self.spec.domains[self.domain]:
            channels = self.spec.shapes[modality][0]
            if modality in self.modalities:
                planes.append(_on_grid(inputs[modality], _grid(self.spec)))
            else:
                planes.append(some.new_zeros(len(some), channels, *_grid(self.spec)))
        return torch.cat(planes, dim=1)

    def _classify_early(
        self, stacked: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        shown = mask.to(stacked.dtype)
        by_plane = []
        for modality in self.spec.domains[self.domain]:
            channels = self.spec.shapes[modality][0]
            if modality in self.modalities:
                column = shown[:, self.modalities.index(modality)]
            else:
                column = torch.zeros_like(shown[:, 0])
            by_plane.append(column[:, None].expand(-1, channels))
        planes = torch.cat(by_plane, dim=1)[:, :, None, None]
        encoded = self.blocks[f"{ENCODER}early/{self.domain}"](stacked * planes)
        weights = shown / shown.sum(dim=1, keepdim=True).clamp(min=1)
        return self.blocks[HEAD + self.domain](encoded), weights

    def _classify_late(
        self, embedded: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Average the modalities' predicted probabilities."""
        logits = [
            self.blocks[f"{HEAD}{self.domain}/{m}"](embedded[:, i])
            for i, m in enumerate(self.modalities)
        ]
        predictions = torch.log_softmax(torch.stack(logits, dim=1), dim=2)
        shown = mask.to(embedded.dtype)
        weights = shown / shown.sum(dim=1, keepdim=True).clamp(min=1)
        logs = torch.log(weights.clamp(min=1e-30))[..., None]
        return torch.logsumexp(predictions + logs, dim=1), weights


def _grid(spec: ModelSpec) -> tuple[int, int]:
    """Return early fusion's common grid: the largest image, or a square that holds a signal."""
    images = [shape[1:] for shape in spec.shapes.values() if len(shape) == 3]
    if images:
        height, width = max(images)
        return height, width
    side = int(max(shape[1] for shape in spec.shapes.values()) ** 0.5)
    return side, side


def _on_grid(images: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Resize images; fold signals row by row onto the grid."""
    if images.ndim == 3:
        cells = grid[0] * grid[1]
        images = nn.functional.interpolate(images, size=cells, mode="linear")
        return images.reshape(len(images), images.shape[1], *grid)
    if images.shape[2:] == grid:
        return images
    return nn.functional.interpolate(images, size=grid, mode="bilinear")
