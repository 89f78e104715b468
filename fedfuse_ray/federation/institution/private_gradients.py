"""Per-record gradients of the training loss, clipped and summed.

A record is a specimen: all its images, the modality dropout drawn for it, and its auxiliary losses
go into one gradient over all blocks, which is clipped as one. Nothing in the network mixes
specimens, so the gradients are taken by `torch.func.vmap`, which can't get that wrong. Where
patients are the unit, their records' gradients become one before the clip (`patients`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.func import functional_call, grad_and_value, vmap

from fedfuse_ray import rng
from fedfuse_ray.blocks import Blocks
from fedfuse_ray.compression.projection import SparseProjection
from fedfuse_ray.federation.institution.optimizer import FlatOptimizer
from fedfuse_ray.federation.institution.patients import Patients, expected_records, records_of
from fedfuse_ray.federation.institution.training import (
    LocalTraining,
    RoundResult,
    drop_modalities,
    learning_rate,
    training_loss,
)
from fedfuse_ray.federation.messages.updates import Update
from fedfuse_ray.federation.plan.noise_shape import COUNT
from fedfuse_ray.federation.plan.terms import PrivacyTerms
from fedfuse_ray.models.net import CrossModalNet
from fedfuse_ray.privacy.mechanisms.adaptive_clipping import centred_count
from fedfuse_ray.privacy.mechanisms.clipping import JOINT, ClippedSum, clip_and_sum_torch
from fedfuse_ray.privacy.mechanisms.gaussian import gaussian_noise
from fedfuse_ray.privacy.mechanisms.sampling import expected_batch, poisson_sample
from fedfuse_ray.privacy.randomness import Randomness, digest_of

CHUNK_FLOATS = 1 << 24
"""Floats of the per-record gradients that are in memory at a time."""


class _Loss(nn.Module):
    """The loss of one specimen, as a module that `functional_call` takes."""

    def __init__(self, net: CrossModalNet) -> None:
        super().__init__()
        self.net = net

    def forward(
        self,
        inputs: dict[str, torch.Tensor],
        present: torch.Tensor,
        shown: torch.Tensor,
        label: torch.Tensor,
    ) -> torch.Tensor:
        batch = {name: x[None] for name, x in inputs.items()}
        return training_loss(self.net, batch, present[None], shown[None], label[None])[0]


def clipped_gradient_sum(
    training: LocalTraining,
    rows: torch.Tensor,
    generator: np.random.Generator,
    clip_norms: dict[str, float],
    groups: dict[str, str] | None,
    sketches: Mapping[str, SparseProjection] = {},
    patients: Patients | None = None,
) -> tuple[ClippedSum, float]:
    """Return the clipped sum of the records' or patients' gradients, and the sum of their losses.

    Args:
        training: Network, data and config.
        rows: Indices of the records, possibly none.
        generator: Draws the modality dropout.
        clip_norms: C by clipping group.
        groups: Group of every block; None clips jointly.
        sketches: Linear maps that a gradient goes through before it is clipped, by block.
        patients: Whose the records are; None where each is clipped by itself.

    Returns:
        Sums by block (of the sketches where there are some), and the summed loss, which is not
        protected: it must not leave.
    """
    net = training.net
    size = max(1, CHUNK_FLOATS // max(1, net.flat.numel()))
    shown = drop_modalities(training.data.present[rows], training.model.modality_dropout, generator)
    sums: Blocks = {
        name: np.zeros(_width(sketches.get(name), stop - start), np.float32)
        for name, (start, stop) in net.offsets.items()
    }
    norms: dict[str, list[Any]] = {name: [] for name in clip_norms}
    total = 0.0
    for part, owners in _chunks(len(rows), size, patients):
        gradients, losses = _per_record(training, rows[part], shown[part])
        if owners is not None:
            gradients = {n: [owners.gradients(g) for g in own] for n, own in gradients.items()}
        for name, sketch in sketches.items():
            gradients[name] = [_sketched(gradients[name], sketch)]
        clipped = clip_and_sum_torch(gradients, clip_norms, groups)
        for name, vector in clipped.sums.items():
            sums[name] += vector
        for name, values in clipped.norms.items():
            norms[name].append(values)
        total += float(losses.sum())
    joined = {n: np.concatenate(v) if v else np.zeros(0) for n, v in norms.items()}
    return ClippedSum(sums, joined), total


def _chunks(
    records: int, size: int, patients: Patients | None
) -> Iterator[tuple[slice, Patients | None]]:
    """Yield a batch's parts of about `size` records; none cuts a patient, and none is empty."""
    if patients is not None:
        yield from patients.chunks(size)
    else:
        yield from ((slice(i, i + size), None) for i in range(0, records, size))


def joint_step(
    training: LocalTraining,
    round: int,
    terms: PrivacyTerms,
    draws: Randomness,
    clip_norm: float | None = None,
    sketches: Mapping[str, SparseProjection] = {},
) -> RoundResult:
    """Return one institution's part of a joint step: the clipped sum of *negative* gradients.

    No noise is in it yet. The records, or patients, are a Poisson sample at the public rate; the
    sum over all institutions is divided by the expected batch at the server.

    Args:
        training: Network, data and config.
        round: From 1.
        terms: The privacy terms.
        draws: The run's randomness, given the incoming weights.
        clip_norm: The round's clipping norm where it is adaptive; the centred count of unclipped
            units is then part of the update.
        sketches: Linear maps before the clip, by block.
    """
    data, rate = training.data, terms.releases[training.name].sampling_rate
    chosen = poisson_sample(data.unit_count, rate, draws, training.name, round)
    rows, patients = records_of(data, chosen, terms.config, draws, training.name, round)
    generator = rng.generator(training.seed, "private training", training.name, round)
    groups = terms.groups(training.net.names)
    clip_norms = terms.clip_norms if clip_norm is None else {JOINT: clip_norm}
    clipped, total = clipped_gradient_sum(
        training, rows, generator, clip_norms, groups, sketches, patients
    )
    update = {name: -vector for name, vector in clipped.sums.items()}
    if clip_norm is not None:
        count = centred_count(clipped.norms[JOINT], clip_norm)
        update[COUNT] = np.array([count], np.float32)
    # The virtual clock must not tell how many records were sampled.
    expected = math.ceil(expected_records(data, rate, terms.config))
    return RoundResult(Update(update), total / max(1, len(rows)), 1, expected)


def run_private_round(
    training: LocalTraining, round: int, terms: PrivacyTerms, draws: Randomness
) -> RoundResult:
    """Run a round of DP-SGD at one institution, with full noise of its own.

    Abadi et al., 2016, arXiv 1607.00133, Algorithm 1, with Poisson sampling at the rate that the
    ledger is charged with, and the sum divided by the expected batch. Where patients are the unit,
    batches are of patients.
    """
    net, config, data = training.net, training.training, training.data
    release = terms.releases[training.name]
    batch = expected_batch(release.sampling_rate, data.unit_count)
    start = net.flat.clone()
    optimizer = FlatOptimizer(config, net.flat, net.gradient)
    stds = terms.noise_stds(terms.sigma(training.name, round))
    groups = terms.groups(net.names)
    generator = rng.generator(training.seed, "private training", training.name, round)
    per_epoch = release.steps // config.local_epochs
    expected, loss = expected_records(data, release.sampling_rate, terms.config), 0.0
    for step in range(release.steps):
        epoch = (round - 1) * config.local_epochs + step // per_epoch
        optimizer.learning_rate = learning_rate(config, epoch, config.rounds * config.local_epochs)
        place = (draws, training.name, round, step)
        chosen = poisson_sample(data.unit_count, release.sampling_rate, *place)
        rows, patients = records_of(data, chosen, terms.config, *place)
        clipped, total = clipped_gradient_sum(
            training, rows, generator, terms.clip_norms, groups, {}, patients
        )
        message = digest_of(clipped.sums)
        noisy = {}
        for name, vector in clipped.sums.items():
            keys = (training.name, round, step, name)
            noise = draws.stream("local noise", *keys, message=message)
            noisy[name] = vector + gaussian_noise(vector.size, stds[groups[name]], noise)
        net.gradient.copy_(net.join(noisy) / batch)
        optimizer.step()
        loss += total / expected
    seen = math.ceil(release.steps * expected)
    update = Update(net.split(net.flat - start))
    return RoundResult(update, loss / release.steps, release.steps, seen)


def _width(sketch: SparseProjection | None, size: int) -> int:
    return size if sketch is None else sketch.coordinates


def _sketched(gradients: list[torch.Tensor], sketch: SparseProjection) -> torch.Tensor:
    """Return P g of each record's gradient g, [B, coordinates]."""
    if sketch.axes:
        parts = [
            _along_axes(part, axes).flatten(1)
            for part, axes in zip(gradients, sketch.axes, strict=True)
        ]
        return torch.cat(parts, dim=1)
    flat = torch.cat([part.reshape(len(part), -1) for part in gradients], dim=1)
    out = flat.new_zeros(len(flat), sketch.coordinates)
    for row in range(len(sketch.index)):
        places = torch.from_numpy(sketch.index[row] + row * sketch.width).to(flat.device)
        signs = torch.from_numpy(sketch.signs[row]).to(flat.device)
        out.index_add_(1, places, flat * signs)
    return out


def _per_record(
    training: LocalTraining, rows: torch.Tensor, shown: torch.Tensor
) -> tuple[dict[str, list[torch.Tensor]], torch.Tensor]:
    """Return each block's per-record gradients, one [B, ...] a parameter, and losses [B]."""
    net, data = training.net, training.data
    module = _Loss(net)
    parameters = {name: p.detach() for name, p in module.named_parameters()}

    def loss(weights: dict[str, torch.Tensor], *record: Any) -> torch.Tensor:
        value: torch.Tensor = functional_call(module, weights, record)
        return value

    gradients, losses = vmap(grad_and_value(loss), in_dims=(None, 0, 0, 0, 0))(
        parameters,
        data.batch(rows),
        data.present[rows].to(data.device),
        shown.to(data.device),
        data.labels[rows].to(data.device),
    )
    by_block: dict[str, list[torch.Tensor]] = {name: [] for name in net.names}
    for block in net.names:
        prefix = f"net.blocks.{block}."
        by_block[block] = [gradients[n] for n in parameters if n.startswith(prefix)]
    return by_block, losses


def _along_axes(gradients: torch.Tensor, axes: tuple[npt.NDArray[np.float32], ...]) -> torch.Tensor:
    """Multiply every axis of [B, n, m, ...] but the first by its matrix."""
    factors = [torch.from_numpy(matrix).to(gradients.device) for matrix in axes]
    if len(factors) == 2:
        return factors[0] @ (gradients @ factors[1].T)
    for factor in factors:
        # Each product moves its axis to the end, so that the next one comes first.
        gradients = torch.tensordot(gradients, factor, dims=([1], [1]))
    return gradients
