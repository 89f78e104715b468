"""Contrastive rounds: embeddings of one specimen's modalities are drawn together, before any label.

InfoNCE between modalities, in both directions: van den Oord et al., 2018, arXiv 1807.03748, Eq. 4;
Radford et al., 2021, arXiv 2103.00020, figure 3. An institution with one modality has nothing to
pair: it sends nothing in these rounds, and blocks that nobody sends stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import torch
from torch.nn import functional

from fedfuse_ray.blocks import Blocks
from fedfuse_ray.federation.institution.optimizer import FlatOptimizer
from fedfuse_ray.federation.institution.training import LocalTraining, RoundResult
from fedfuse_ray.federation.messages.updates import Update
from fedfuse_ray.federation.strategies import LocalRule
from fedfuse_ray.models.spec import ENCODER


@dataclass(frozen=True)
class ContrastiveTraining(LocalTraining):
    """Local training that needs pairs and no labels; it moves and sends encoders only."""

    temperature: float = 0.1

    def run_round(
        self, round: int, rule: LocalRule, server_controls: Blocks, own_controls: Blocks
    ) -> RoundResult:
        """Train as always, and keep back what the loss does not reach."""
        result = super().run_round(round, rule, server_controls, own_controls)
        encoders = {n: v for n, v in result.update.weights.items() if n.startswith(ENCODER)}
        return replace(result, update=Update(encoders))

    def gradient(self, rows: torch.Tensor, generator: np.random.Generator) -> float:
        """Leave a batch's gradient in `net.gradient`, zeros without pairs; return the loss."""
        self.net.gradient.zero_()
        embedded = self.net.embed(self.data.batch(rows))
        present = self.data.present[rows].to(self.data.device)
        loss = contrastive_loss(embedded, present, self.temperature)
        if loss.requires_grad:
            loss.backward()
        return float(loss.detach())


def contrastive_loss(
    embedded: torch.Tensor, present: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Return the mean symmetric InfoNCE over all pairs of images of one specimen.

    An image has to find its specimen's other one among those of the batch, by the cosine of their
    embeddings. Absent images are neither asked for nor offered.

    Args:
        embedded: Embeddings [B, M, D].
        present: Which of them there are, bool [B, M].
        temperature: By which cosines are divided.

    Returns:
        A scalar; 0 without a gradient where no two specimens share a pair of modalities.
    """
    unit = functional.normalize(embedded, dim=2)
    total, pairs = embedded.new_zeros(()), 0
    for one, other in combinations(range(present.shape[1]), 2):
        both = present[:, one] & present[:, other]
        count = int(both.sum())
        if count < 2:  # alone there is nothing to be told from
            continue
        cosines = unit[both, one] @ unit[both, other].T / temperature
        own = torch.arange(count, device=cosines.device)
        forth = functional.cross_entropy(cosines, own, reduction="sum")
        back = functional.cross_entropy(cosines.T, own, reduction="sum")
        total, pairs = total + (forth + back) / 2, pairs + count
    return total / max(1, pairs)


def in_round(training: LocalTraining, round: int) -> LocalTraining | None:
    """Return how an institution trains in a round, from 1: None where it has nothing to pair."""
    contrastive = training.training.contrastive
    if contrastive is None or round > contrastive.rounds:
        return training
    return _contrastive(training)


def pretrain(training: LocalTraining) -> int:
    """Train without a federation for the contrastive rounds' epochs; returns their number."""
    contrastive = training.training.contrastive
    paired = _contrastive(training)
    if contrastive is None or paired is None:
        return 0
    optimizer = FlatOptimizer(training.training, training.net.flat, training.net.gradient)
    epochs = contrastive.rounds * training.training.local_epochs
    for epoch in range(1, epochs + 1):
        paired.run_epoch(epoch, optimizer)
    return epochs


def _contrastive(training: LocalTraining) -> ContrastiveTraining | None:
    config = training.training.contrastive
    if config is None or len(training.net.modalities) < 2:
        return None
    shared = {name: getattr(training, name) for name in LocalTraining.__dataclass_fields__}
    return ContrastiveTraining(**shared, temperature=config.temperature)
