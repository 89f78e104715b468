"""Fusion: the embeddings of the modalities present become one vector.

Taxonomy of early, late and hybrid fusion: Baltrusaitis et al., 2019, arXiv 1705.09406, section 6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import nn

Weighted = tuple[torch.Tensor, torch.Tensor]
"""What was fused or predicted, [B, ...], and the modalities' weights [B, M]."""


class Fusion(Protocol):
    """Maps embeddings [B, M, D] and a mask [B, M] to ([B, D], weights [B, M])."""

    def __call__(self, embeddings: torch.Tensor, mask: torch.Tensor) -> Weighted:
        """Fuse. A row of the mask with nothing present gives zeros."""
        ...


class AttentionFusion(nn.Module):
    """Masked additive attention over modalities, then a residual layer for their interactions.

    Weights are the softmax, over the modalities present, of a learned score of each embedding
    (Bahdanau et al., 2015, arXiv 1409.0473, Eq. 6, with a learned query). All domains share it.

    Args:
        dim: Length of an embedding.
        slots: Most modalities of a domain; not used.
    """

    def __init__(self, dim: int, slots: int) -> None:
        super().__init__()
        self.score = nn.Linear(dim, dim)
        self.query = nn.Parameter(torch.randn(dim))
        self.hidden = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, embeddings: torch.Tensor, mask: torch.Tensor) -> Weighted:
        """Fuse [B, M, D] under a mask [B, M]."""
        scores = torch.tanh(self.score(embeddings)) @ self.query
        weights = torch.softmax(scores.masked_fill(~mask, -1e9), dim=1) * mask
        count = mask.sum(dim=1, keepdim=True)
        # Evidence of independent modalities adds up, so the mean is scaled by how many there are.
        fused = torch.einsum("bm,bmd->bd", weights, embeddings) * count
        return fused + self.out(torch.relu(self.hidden(fused))), weights


class MeanFusion(nn.Module):
    """Mean over the modalities present; it has no parameters and ignores its arguments."""

    def __init__(self, dim: int, slots: int) -> None:
        super().__init__()

    def forward(self, embeddings: torch.Tensor, mask: torch.Tensor) -> Weighted:
        """Fuse [B, M, D] under a mask [B, M]."""
        weights = equal_weights(mask, embeddings.dtype)
        return torch.einsum("bm,bmd->bd", weights, embeddings), weights


class ConcatFusion(nn.Module):
    """A layer over the concatenated embeddings, zero where absent, with the mask beside them.

    A domain has at most `slots` modalities; fewer are padded with zeros.
    """

    def __init__(self, dim: int, slots: int) -> None:
        super().__init__()
        self.slots = slots
        self.hidden = nn.Linear(slots * (dim + 1), 2 * dim)
        self.out = nn.Linear(2 * dim, dim)

    def forward(self, embeddings: torch.Tensor, mask: torch.Tensor) -> Weighted:
        """Fuse [B, M, D] under a mask [B, M]."""
        shown = mask.to(embeddings.dtype)
        joined = torch.cat([embeddings * shown[..., None], shown[..., None]], dim=2)
        padded = nn.functional.pad(joined, (0, 0, 0, self.slots - mask.shape[1]))
        fused = self.out(torch.relu(self.hidden(padded.flatten(1))))
        return fused, equal_weights(mask, embeddings.dtype)


def equal_weights(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return each present modality's equal share [B, M]; zeros where nothing is present."""
    shown = mask.to(dtype)
    return shown / shown.sum(dim=1, keepdim=True).clamp(min=1)


FUSIONS: dict[str, Callable[[int, int], nn.Module]] = {
    "attention": AttentionFusion,
    "mean": MeanFusion,
    "concat": ConcatFusion,
    "hybrid": AttentionFusion,
}
