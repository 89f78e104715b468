"""Paths on which modalities meet as embeddings, or as predictions."""

from __future__ import annotations

import math

import torch

from fedfuse_ray.models.fusion import FUSIONS, Weighted, equal_weights
from fedfuse_ray.models.paths.owner import Inputs, Owner
from fedfuse_ray.models.spec import FUSION


class _Encoded:
    """What these paths begin with."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner

    def embed(self, inputs: Inputs) -> torch.Tensor:
        """Encode every modality: [B, M, D]."""
        encoded = [self.owner.encoder(m)(inputs[m]) for m in self.owner.modalities]
        return torch.stack(encoded, dim=1)


class Joint(_Encoded):
    """A fusion of embeddings, then the domain's head: `attention`, `mean`, `concat`."""

    def __init__(self, owner: Owner) -> None:
        super().__init__(owner)
        kind = owner.spec.config.fusion
        self._fusion = FUSIONS[kind](0, 0) if kind == "mean" else owner.blocks[FUSION]
        self._by_place = kind == "concat"
        self._places = [owner.siblings.index(m) for m in owner.modalities]

    def classify(self, embedded: torch.Tensor, mask: torch.Tensor) -> Weighted:
        """Classify the fused embeddings."""
        if self._by_place:
            embedded, mask = self._placed(embedded), self._placed(mask)
        fused, weights = self._fusion(embedded, mask)
        if self._by_place:
            weights = weights[:, self._places]
        return self.owner.head()(fused), weights

    def _placed(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Spread [B, M, ...] over the domain's modalities, zero where this owner has none.

        `concat` reads a modality at its place, which must be the same at every owner.
        """
        columns = [torch.zeros_like(embeddings[:, 0])] * len(self.owner.siblings)
        for index, place in enumerate(self._places):
            columns[place] = embeddings[:, index]
        return torch.stack(columns, dim=1)


class Late(_Encoded):
    """A head for each modality; the predicted probabilities are averaged: `late`, `none`."""

    def classify(self, embedded: torch.Tensor, mask: torch.Tensor) -> Weighted:
        """Average the modalities' predicted probabilities."""
        logits = [self.owner.head(m)(embedded[:, i]) for i, m in enumerate(self.owner.modalities)]
        predictions = torch.log_softmax(torch.stack(logits, dim=1), dim=2)
        weights = equal_weights(mask, embedded.dtype)
        logs = torch.log(weights.clamp(min=1e-30))[..., None]
        return torch.logsumexp(predictions + logs, dim=1), weights


class Product(_Encoded):
    """A head for each modality; their logits are added up: a product of experts, `product`.

    Under equal priors the log-odds of independent modalities add up (Hinton, 2002, Neural
    Computation 14(8), Eq. 1). Heads begin at zero, which is no evidence.
    """

    def __init__(self, owner: Owner) -> None:
        super().__init__(owner)
        self._places = [owner.siblings.index(m) for m in owner.modalities]

    def classify(self, embedded: torch.Tensor, mask: torch.Tensor) -> Weighted:
        """Add up the present modalities' logits.

        A modality's weight is its part of the evidence: of the sum of all logits' distances from
        their modality's mean, over classes. Without any evidence the weights are equal.
        """
        logits = self.owner.head()(embedded, self._places)
        logits = torch.where(mask[..., None], logits, torch.zeros_like(logits))
        evidence = (logits - logits.mean(dim=2, keepdim=True)).detach().abs().sum(dim=2)
        total = evidence.sum(dim=1, keepdim=True)
        weights = torch.where(
            total > 0, evidence / total.clamp(min=1e-30), equal_weights(mask, embedded.dtype)
        )
        return logits.sum(dim=1), weights


class Hybrid(_Encoded):
    """The mean of a joint prediction and a late one, over the same embeddings.

    Hybrid fusion as Baltrusaitis et al., 2019, arXiv 1705.09406, section 6.1 name it: the output of
    a joint model beside that of unimodal ones. Probabilities are averaged, so one confident part
    decides where the other is unsure.
    """

    def __init__(self, owner: Owner) -> None:
        super().__init__(owner)
        self._joint, self._late = Joint(owner), Late(owner)

    def classify(self, embedded: torch.Tensor, mask: torch.Tensor) -> Weighted:
        """Average both parts' predicted probabilities; the weights are the joint part's."""
        joint, weights = self._joint.classify(embedded, mask)
        late, _ = self._late.classify(embedded, mask)
        return torch.logaddexp(torch.log_softmax(joint, dim=1), late) - math.log(2), weights
