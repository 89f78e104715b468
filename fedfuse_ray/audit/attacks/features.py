"""Feature inversion: what a linear layer's gradient gives away without any search.

The gradient of one record with respect to an encoder's projection, or to a head on frozen features,
is the outer product of an error and the features, and with respect to its bias the error itself.
One divided by the other is the feature vector: exactly where nothing is added, by least squares
where noise is. With a frozen encoder this is all that is left to leak; a record is found by
comparing features with those of suspects. Adversary: knows the network, and one view of the
gradient (`observations`). Source: Phong et al., 2018, doi 10.1109/TIFS.2017.2787987, section III;
Geiping et al., 2020, arXiv 2003.14053, proposition 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fedfuse_ray import rng
from fedfuse_ray.audit.attacks.observations import Bench
from fedfuse_ray.audit.attacks.similarity import identified
from fedfuse_ray.federation.institution.training import LocalTraining
from fedfuse_ray.models.modules import Encoder
from fedfuse_ray.models.net import CrossModalNet
from fedfuse_ray.models.spec import HEAD

DECOYS = 63


@dataclass(frozen=True)
class FeatureLeak:
    """How much of the features one view gives away.

    Attributes:
        view: What was observed.
        relative_error: Median over records and modalities of |estimate - features| / |features|.
        identified: Fraction of records that were told from the decoys.
        decoys: How many decoys each was hidden among.
        records: Records attacked.
    """

    view: str
    relative_error: float
    identified: float
    decoys: int
    records: int


def feature_leaks(bench: Bench, institution: str, records: int) -> list[FeatureLeak]:
    """Attack an institution's records one by one, under every view.

    A fusion before the encoders end leaves no single modality's features to find: no leak is told.
    """
    training = bench.training(bench.plan.by_name[institution])
    features = encoder_features(training)
    if not features:
        return []
    generator = rng.generator(bench.seed, "feature inversion", institution)
    order = generator.permutation(len(training.data))
    chosen = [int(row) for row in order[:records]]
    leaks = []
    for view in bench.views:
        errors, hits = [], []
        for row in chosen:
            estimates = invert_features(training.net, bench.observe(training, [row], view))
            decoys = order[order != row][:DECOYS]
            error, hit = _compare(training, features, estimates, row, decoys)
            errors += error
            hits.append(hit)
        leaks.append(
            FeatureLeak(
                view=view,
                relative_error=float(np.median(errors)),
                identified=float(np.mean(hits)),
                decoys=min(DECOYS, len(order) - 1),
                records=len(chosen),
            )
        )
    return leaks


def encoder_features(training: LocalTraining) -> dict[str, np.ndarray]:
    """Return what each encoder's projection, or head, is fed, modality to float64 [N, F]."""
    features = {}
    data = training.data.batch(slice(None))
    with torch.no_grad():
        for modality in training.net.modalities:
            encoder = encoder_of(training.net, modality)
            if encoder is not None:
                features[modality] = encoder.backbone(data[modality]).double().numpy()
            elif training.net.spec.heads_only:
                features[modality] = data[modality].double().numpy()
    return features


def invert_features(net: CrossModalNet, gradient: torch.Tensor) -> dict[str, np.ndarray]:
    """Return each modality's estimated features, float64 [F], from an observed gradient [P].

    They are zeros where nothing came through.
    """
    estimates = {}
    for modality in net.modalities:
        found = _layer_gradient(net, modality, gradient)
        if found is None:
            continue
        weight, bias = (part.double().numpy() for part in found)
        count = weight.shape[1]
        energy = float(np.square(bias).sum())
        total = np.einsum("d,df->f", bias, weight)
        estimates[modality] = total / energy if energy else np.zeros(count)
    return estimates


def _layer_gradient(
    net: CrossModalNet, modality: str, gradient: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return the gradient of the linear layer that features go into: weight [D, F], bias [D]."""
    encoder = encoder_of(net, modality)
    if encoder is not None:
        stop = net.offsets[net.encoder_names[modality]][1]
        dim, count = encoder.projection.weight.shape
        last = gradient[stop - dim * (count + 1) : stop]
        return last[:-dim].reshape(dim, count), last[-dim:]
    if not net.spec.heads_only:
        return None
    single = f"{HEAD}{net.domain}/{modality}"
    start, stop = net.offsets.get(single, net.offsets.get(HEAD + net.domain, (0, 0)))
    siblings = [modality] if single in net.offsets else list(net.spec.domains[net.domain])
    heads, classes = len(siblings), net.spec.classes[net.domain]
    place, whole = siblings.index(modality), gradient[start:stop]
    biases = heads * classes
    weights = whole[:-biases].reshape(heads, classes, -1)
    return weights[place], whole[-biases:].reshape(heads, classes)[place]


def encoder_of(net: CrossModalNet, modality: str) -> Encoder | None:
    """Return a modality's encoder, or None where the fusion has none of its own."""
    name = net.encoder_names[modality]
    if name not in net.blocks:
        return None
    block = net.blocks[name]
    return block if isinstance(block, Encoder) else None


def _compare(
    training: LocalTraining,
    features: dict[str, np.ndarray],
    estimates: dict[str, np.ndarray],
    row: int,
    decoys: Sequence[int],
) -> tuple[list[float], bool]:
    """Return the relative errors over the modalities present, and whether the record is found."""
    present = training.data.present[row]
    errors, own, guess, others = [], [], [], []
    for slot, modality in enumerate(training.net.modalities):
        if modality not in features or not present[slot]:
            continue
        every, estimate = features[modality], estimates[modality]
        squares = np.square(estimate - every[row]).sum() / np.square(every[row]).sum()
        errors.append(float(np.sqrt(squares)))
        scale = every.std(axis=0) + 1e-9
        own.append(every[row] / scale)
        guess.append(estimate / scale)
        others.append(every[decoys] / scale)
    if not own:
        return errors, False
    hit = identified(np.concatenate(guess), np.concatenate(own), np.concatenate(others, axis=1))
    return errors, hit
