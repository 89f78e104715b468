"""Training without a federation, until validation stops improving."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from fedfuse_ray.blocks import Blocks
from fedfuse_ray.federation.institution.contrastive import pretrain
from fedfuse_ray.federation.institution.optimizer import FlatOptimizer
from fedfuse_ray.federation.institution.tensors import TensorData
from fedfuse_ray.federation.institution.training import LocalTraining
from fedfuse_ray.models.net import CrossModalNet

_DECAYS = 2
_DECAY = 0.2


@dataclass(frozen=True)
class History:
    """How a training without a federation went.

    Attributes:
        losses: Training loss of each epoch.
        validation: Validation accuracy after each epoch.
        best_epoch: The epoch whose weights were kept, from 1.
        weights: Those weights.
    """

    losses: tuple[float, ...]
    validation: tuple[float, ...]
    best_epoch: int
    weights: Blocks


def train_alone(training: LocalTraining, validation: TensorData) -> History:
    """Train with patience: back to the best weights at a fifth of the learning rate, twice.

    Best is by validation accuracy, then by validation loss. Without validation specimens the
    training loss decides. Contrastive epochs come first and are not counted.
    """
    net, config = training.net, training.training
    before = pretrain(training)
    optimizer = FlatOptimizer(config, net.flat, net.gradient)
    best, best_epoch, best_flat = (-1.0, 0.0), 0, net.flat.clone()
    losses: list[float] = []
    scores: list[float] = []
    decays, since = 0, 0
    for epoch in range(1, config.max_epochs + 1):
        losses.append(training.run_epoch(before + epoch, optimizer))
        accuracy, loss = _validate(net, validation)
        scores.append(accuracy)
        score = (accuracy, -loss if len(validation) else -losses[-1])
        since += 1
        if score > best:
            best, best_epoch, best_flat, since = score, epoch, net.flat.clone(), 0
        if since >= config.patience:
            if decays == _DECAYS:
                break
            decays, since = decays + 1, 0
            net.flat.copy_(best_flat)
            rate = optimizer.learning_rate * _DECAY
            optimizer = FlatOptimizer(config, net.flat, net.gradient)
            optimizer.learning_rate = rate
    return History(tuple(losses), tuple(scores), best_epoch, net.split(best_flat))


def _validate(net: CrossModalNet, data: TensorData) -> tuple[float, float]:
    """Return accuracy and mean cross-entropy of the fused prediction (mean single one without)."""
    if not len(data):
        return 0.0, 0.0
    rows = torch.arange(len(data))
    correct, total = 0.0, 0.0
    with torch.inference_mode():
        for chunk in torch.split(rows, 512):
            embedded = net.embed(data.batch(chunk))
            logits, _ = net.classify(embedded, data.present[chunk].to(data.device))
            labels = data.labels[chunk].to(data.device)
            total += float(functional.cross_entropy(logits, labels, reduction="sum"))
            correct += int((logits.argmax(dim=1) == labels).sum())
    return correct / len(data), total / len(data)
