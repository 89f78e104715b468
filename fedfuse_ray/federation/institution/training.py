"""Local training: batches, the loss with missing modalities, the optimizer, a strategy's rule."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from fedfuse_ray import rng
from fedfuse_ray.blocks import Blocks
from fedfuse_ray.config import ModelConfig, TrainingConfig
from fedfuse_ray.federation.institution.optimizer import FlatOptimizer
from fedfuse_ray.federation.institution.tensors import TensorData
from fedfuse_ray.federation.messages.metrics import Counts, View
from fedfuse_ray.federation.messages.updates import Update
from fedfuse_ray.federation.strategies import LocalRule
from fedfuse_ray.models.net import CrossModalNet

_CHUNK = 512


@dataclass(frozen=True)
class RoundResult:
    """What a round of local training gave.

    Attributes:
        update: New minus old weights, and control variates under SCAFFOLD.
        loss: Mean loss over the steps.
        steps: Optimizer steps.
        specimens: Specimens that went through the network, once for each pass.
        controls: The institution's new control variates under SCAFFOLD.
    """

    update: Update
    loss: float
    steps: int
    specimens: int = 0
    controls: Blocks = field(default_factory=dict)


@dataclass(frozen=True)
class Prediction:
    """Counts over a set of specimens, shown one view.

    Attributes:
        confusion: [true class, predicted class], over specimens with something to see.
        attention: Sum of the fusion's weights over them, then their number: [M + 1].
    """

    confusion: Counts
    attention: npt.NDArray[np.float64]


@dataclass(frozen=True)
class LocalTraining:
    """Trains one network on one participant's specimens.

    Attributes:
        net: The network, with its weights set.
        data: The training specimens.
        training: The training config.
        model: The model config.
        batch_size: Specimens a step.
        seed: Root of the random streams.
        name: The participant, which names its streams.
        local_steps: Most steps a round; None takes all of the local epochs.
    """

    net: CrossModalNet
    data: TensorData
    training: TrainingConfig
    model: ModelConfig
    batch_size: int
    seed: int
    name: str
    local_steps: int | None = None

    def run_round(
        self, round: int, rule: LocalRule, server_controls: Blocks, own_controls: Blocks
    ) -> RoundResult:
        """Train `local_epochs`, or up to `local_steps`, from the network's present weights.

        Args:
            round: From 1; names the random streams and places the learning-rate schedule.
            rule: What the strategy changes.
            server_controls: The server's control variates under SCAFFOLD, by block.
            own_controls: The institution's own ones, empty at first.
        """
        net = self.net
        start = net.flat.clone()
        optimizer = FlatOptimizer(self.training, net.flat, net.gradient)
        correction = self._correction(server_controls, own_controls) if rule.controls else None
        raw_sum = torch.zeros_like(start) if rule.controls else None
        generator = rng.generator(self.seed, "local training", self.name, round)
        losses: list[float] = []
        seen = 0
        for rate, rows in self._steps(round, generator):
            seen += len(rows)
            optimizer.learning_rate = rate
            losses.append(self.gradient(rows, generator))
            if raw_sum is not None and correction is not None:
                raw_sum += net.gradient
                net.gradient += correction
            if rule.proximal_mu:
                net.gradient += rule.proximal_mu * (net.flat - start)
            optimizer.step()
        steps = len(losses)
        difference = (net.flat - start) / (steps if rule.normalise else 1)
        controls = net.split(raw_sum / steps) if raw_sum is not None else {}
        change = {n: v - own_controls[n] if n in own_controls else v for n, v in controls.items()}
        update = Update(net.split(difference), change)
        return RoundResult(update, float(np.mean(losses)), steps, seen, controls)

    def _steps(
        self, round: int, generator: np.random.Generator
    ) -> Iterator[tuple[float, torch.Tensor]]:
        """Yield learning rate and rows of each of a round's steps."""
        total = self.training.rounds * self.training.local_epochs
        steps = 0
        for local_epoch in range(self.training.local_epochs):
            epoch = (round - 1) * self.training.local_epochs + local_epoch
            rate = learning_rate(self.training, epoch, total)
            for rows in batches(len(self.data), self.batch_size, generator):
                if steps == self.local_steps:
                    return
                steps += 1
                yield rate, rows

    def run_epoch(self, epoch: int, optimizer: FlatOptimizer) -> float:
        """Train one epoch and return its mean loss; for training without a federation."""
        generator = rng.generator(self.seed, "training alone", self.name, epoch)
        losses = []
        for rows in batches(len(self.data), self.batch_size, generator):
            losses.append(self.gradient(rows, generator))
            optimizer.step()
        return float(np.mean(losses))

    def gradient(self, rows: torch.Tensor, generator: np.random.Generator) -> float:
        """Leave the mean gradient of a batch in `net.gradient`, and return the mean loss."""
        self.net.gradient.zero_()
        present = self.data.present[rows]
        hidden = drop_modalities(present, self.model.modality_dropout, generator)
        loss = training_loss(
            self.net,
            self.data.batch(rows),
            present.to(self.data.device),
            hidden.to(self.data.device),
            self.data.labels[rows].to(self.data.device),
        ).mean()
        loss.backward()
        return float(loss.detach())

    def _correction(self, server: Blocks, own: Blocks) -> torch.Tensor:
        """SCAFFOLD's c - c_i, where c_i is zero at first."""
        names = self.net.names
        return self.net.join({n: server[n] - own[n] if n in own else server[n] for n in names})


def training_loss(
    net: CrossModalNet,
    inputs: dict[str, torch.Tensor],
    present: torch.Tensor,
    shown: torch.Tensor,
    labels: torch.Tensor,
) -> torch.Tensor:
    """Return each specimen's loss, [B].

    The cross-entropy of the fused prediction, from the modalities `shown`, plus
    `auxiliary_weight` times the mean cross-entropy of the predictions from each modality present
    alone. Without fusion (`none`) only the latter.
    """
    embedded = net.embed(inputs)
    count, slots = present.shape
    alone = torch.eye(slots, dtype=torch.bool, device=present.device)[:, None] & present
    masks = torch.cat([shown[None], alone])  # [1 + M, B, M]
    repeated = embedded.expand(1 + slots, *embedded.shape).flatten(0, 1)
    logits, _ = net.classify(repeated, masks.flatten(0, 1))
    losses = functional.cross_entropy(logits, labels.repeat(1 + slots), reduction="none")
    losses = losses.view(1 + slots, count)
    each = torch.where(present.T, losses[1:], torch.zeros_like(losses[1:]))
    single = each.sum(dim=0) / present.sum(dim=1)
    if net.kind == "none":
        return single
    return losses[0] + net.spec.config.auxiliary_weight * single


def drop_modalities(
    present: torch.Tensor, rate: float, generator: np.random.Generator
) -> torch.Tensor:
    """Hide each image with probability `rate`, but never a specimen's last; bool [B, M]."""
    if rate == 0 or present.shape[1] == 1:
        return present
    scores = torch.from_numpy(generator.random(present.shape))
    kept = present & (scores >= rate)
    best = torch.where(present, scores, torch.full_like(scores, -1.0)).argmax(dim=1)
    fallback = torch.zeros_like(present).scatter(1, best[:, None], True) & present
    return torch.where(kept.any(dim=1, keepdim=True), kept, fallback)


def batches(count: int, size: int, generator: np.random.Generator) -> Iterator[torch.Tensor]:
    """Yield index batches of a shuffled epoch; the last may be smaller."""
    order = torch.from_numpy(generator.permutation(count))
    yield from torch.split(order, size)


def learning_rate(config: TrainingConfig, epoch: int, total_epochs: int) -> float:
    """Return the learning rate of an epoch, counted from 0 over all rounds."""
    if config.schedule == "cosine":
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / total_epochs))
    if config.schedule == "step":
        return config.learning_rate * config.decay_factor ** (epoch // config.decay_every)
    return config.learning_rate


def predict(
    net: CrossModalNet, data: TensorData, views: Sequence[View], chunk: int = _CHUNK
) -> dict[View, Prediction]:
    """Classify all specimens once for each view.

    The data may have more modalities than the network. A specimen that has none of a view's
    modalities is left out of that view's counts.
    """
    classes = net.spec.classes[net.domain]
    slots = len(net.modalities)
    columns = [data.modalities.index(m) for m in net.modalities]
    confusion = {view: torch.zeros(classes, classes, dtype=torch.int64) for view in views}
    attention = {view: torch.zeros(slots + 1, dtype=torch.float64) for view in views}
    with torch.inference_mode():
        for start in range(0, len(data), chunk):
            rows = slice(start, start + chunk)
            embedded = net.embed(data.batch(rows))
            present = data.present[rows][:, columns].to(embedded.device)
            for view in views:
                wanted = torch.tensor([m in view for m in net.modalities], device=present.device)
                mask = present & wanted
                seen = mask.any(dim=1)
                logits, weights = net.classify(embedded, mask)
                labels = data.labels[rows][seen.cpu()]
                guesses = logits.argmax(dim=1)[seen].cpu()
                cells = torch.bincount(labels * classes + guesses, minlength=classes**2)
                confusion[view] += cells.reshape(classes, classes)
                attention[view][:-1] += weights[seen].sum(dim=0).double().cpu()
                attention[view][-1] += int(seen.sum())
    return {v: Prediction(confusion[v].numpy(), attention[v].numpy()) for v in views}
