"""What a path through the network may use: an owner's modules, and its place in its domain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from fedfuse_ray.models.fusion import Weighted
from fedfuse_ray.models.spec import HEAD, ModelSpec, encoder_block

Inputs = Mapping[str, torch.Tensor]
"""Modality to images [B, *shape], or to features [B, F] where the backbone is frozen."""


class Path(Protocol):
    """From an owner's inputs to its predictions: where, and how, modalities meet."""

    def embed(self, inputs: Inputs) -> torch.Tensor:
        """Compute what each modality gives on its own, whatever is shown: [B, ...]."""
        ...

    def classify(self, embedded: torch.Tensor, mask: torch.Tensor) -> Weighted:
        """Classify what `embed` returned, shown only the modalities in the mask [B, M].

        Returns:
            Log-probabilities up to a constant [B, K], and the modalities' weights [B, M].
        """
        ...


@dataclass(frozen=True)
class Owner:
    """An owner of `modalities` in `domain`, and its modules by block; see `CrossModalNet`."""

    spec: ModelSpec
    domain: str
    modalities: tuple[str, ...]
    tier: str
    blocks: nn.ModuleDict

    @property
    def siblings(self) -> tuple[str, ...]:
        """All modalities of the owner's domain."""
        return self.spec.domains[self.domain]

    def encoder(self, modality: str) -> nn.Module:
        """Return a modality's encoder; frozen features may be embeddings as they are."""
        if self.spec.heads_only:
            return nn.Identity()
        return self.blocks[encoder_block(modality, self.tier)]

    def head(self, modality: str = "") -> nn.Module:
        """Return the domain's head, or that of one modality."""
        return self.blocks[HEAD + self.domain + (f"/{modality}" if modality else "")]
