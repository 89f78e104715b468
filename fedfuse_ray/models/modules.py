"""The module of each block, by the block's name."""

from __future__ import annotations

import torch
from torch import nn

from fedfuse_ray.models.encoders import build_backbone, feature_count
from fedfuse_ray.models.encoders.cnn import first_stages, last_stages
from fedfuse_ray.models.fusion import FUSIONS
from fedfuse_ray.models.paths.maps import input_grid
from fedfuse_ray.models.spec import EARLY, FUSION, HEAD, SHARED, ModelSpec, encoder_of_block


class Encoder(nn.Module):
    """A backbone (identity where it is frozen) and the projection to the embedding."""

    def __init__(self, backbone: nn.Module, features: int, dim: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection = nn.Linear(features, dim)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map [B, *shape] to [B, D]."""
        return self.projection(self.backbone(inputs))


class ModalityHeads(nn.Module):
    """A linear head for each of a domain's modalities, in one block that all of the domain own.

    They begin at zero, so that an untrained modality has no say. One block, since under shared
    noise a block of few owners carries more of it: who lacks a modality sends its share of noise.
    """

    def __init__(self, modalities: int, dim: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(modalities, classes, dim))
        self.bias = nn.Parameter(torch.zeros(modalities, classes))

    def forward(self, embedded: torch.Tensor, places: list[int]) -> torch.Tensor:
        """Map embeddings [B, M, D] of the modalities at some places to logits [B, M, K]."""
        return torch.einsum("bmd,mkd->bmk", embedded, self.weight[places]) + self.bias[places]


def build_block(spec: ModelSpec, name: str) -> nn.Module:
    """Return the module of one block, with weights from torch's current generator."""
    dim = spec.width
    if name == FUSION:
        return FUSIONS[spec.config.fusion](dim, spec.slots)
    if name.startswith(HEAD):
        domain = name.removeprefix(HEAD).split("/")[0]
        if spec.config.fusion == "product":
            return ModalityHeads(len(spec.domains[domain]), dim, spec.classes[domain])
        return nn.Linear(dim, spec.classes[domain])
    modality, tier = encoder_of_block(name)
    if modality.startswith((EARLY, SHARED)):
        backbone = _of_domain(spec, modality)
        return Encoder(backbone, feature_count(backbone), dim)
    config = spec.config.encoder_for(modality, tier)
    if spec.config.fusion == "intermediate":
        return first_stages(config, spec.shapes[modality], spec.depth)
    if config.projection is not None:  # the backbone itself need not be built
        return Encoder(nn.Identity(), config.projection, dim)
    backbone = build_backbone(config, spec.shapes[modality])
    features = feature_count(backbone)
    return Encoder(nn.Identity() if spec.frozen(modality, tier) else backbone, features, dim)


def _of_domain(spec: ModelSpec, name: str) -> nn.Module:
    """Return the backbone of a domain's block: over stacked inputs, or over averaged maps."""
    if name.startswith(SHARED):
        return last_stages(spec.config.encoder, spec.depth)
    channels = sum(spec.shapes[m][0] for m in spec.domains[name.removeprefix(EARLY)])
    return build_backbone(spec.config.encoder, (channels, *input_grid(spec)))
