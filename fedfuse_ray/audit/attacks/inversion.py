"""Gradient inversion: images from a gradient.

Adversary: knows the network, its weights, the labels, and one view of the gradient
(`observations`).

One record: the projection's gradient gives the encoder's features and the error that reached them
(`features`); an image is then searched that has these features, and whose gradient over the
encoder's layers points the same way. A batch: images are searched whose summed gradient over the
whole network points the same way. Both penalise total variation and step along the sign of the
derivative. Source: Geiping et al., 2020, arXiv 2003.14053, Eq. 4, proposition 3.1 and section 5;
batches: Zhu et al., 2019, arXiv 1906.08935.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from fedfuse_ray.audit.attacks.features import encoder_of, invert_features
from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.institution.training import training_loss
from fedfuse_ray.models.net import CrossModalNet

_LEARNING_RATE = 0.1
_TOTAL_VARIATION = 1e-3
_DIRECTIONS = 0.5


@dataclass(frozen=True)
class Known:
    """What the attacker knows of G gradients, each over B records.

    Attributes:
        gradients: What it observed, [G, P].
        present: Which modalities each record has, bool [G, B, M].
        labels: Their labels, int64 [G, B].
    """

    gradients: torch.Tensor
    present: torch.Tensor
    labels: torch.Tensor


def invert_records(
    net: CrossModalNet,
    modality: str,
    gradients: torch.Tensor,
    steps: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """Reconstruct one modality's image behind each gradient of a single record, [R, P].

    The network has the weights at which these were taken. The generator draws the images to start
    from.

    Returns:
        Images [R, *shape] in [0, 1].

    Raises:
        InputError: The network has no encoder for this modality.
    """
    encoder = encoder_of(net, modality)
    if encoder is None:
        raise InputError("model.fusion", net.kind, f"has no encoder for {modality} alone")
    start, stop = net.offsets[net.encoder_names[modality]]
    dim, count = encoder.projection.weight.shape
    own = gradients[:, start:stop]
    wanted = torch.from_numpy(
        np.stack([invert_features(net, row)[modality] for row in gradients])
    ).float()
    errors = own[:, -dim:] @ encoder.projection.weight.detach()
    parameters = {n: p.detach() for n, p in encoder.backbone.named_parameters()}
    layers = own[:, : -dim * (count + 1)].split([p.numel() for p in parameters.values()], dim=1)

    def response(
        weights: dict[str, torch.Tensor], image: torch.Tensor, error: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        features = functional_call(encoder.backbone, weights, (image[None],))[0]
        return (features * error).sum(), features

    each = vmap(grad(response, has_aux=True), in_dims=(None, 0, 0))

    def objective(images: dict[str, torch.Tensor]) -> torch.Tensor:
        found, features = each(parameters, images[modality], errors)
        off = (features - wanted).square().sum(1) / wanted.square().sum(1).clamp(min=1e-20)
        turns = [
            1.0 - functional.cosine_similarity(found[name].flatten(1), layer)
            for name, layer in zip(parameters, layers, strict=True)
        ]
        return off.sum() + _DIRECTIONS * torch.stack(turns).mean(0).sum()

    shape = (len(gradients), *net.spec.shapes[modality])
    return _search({modality: shape}, objective, steps, generator)[modality]


def invert_batch(
    net: CrossModalNet, known: Known, steps: int, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Reconstruct the images behind gradients of small batches, taken at the network's weights.

    Returns:
        Modality to images [G, B, *shape] in [0, 1], in no particular order within a batch.
    """
    groups, batch = known.labels.shape
    target = functional.normalize(known.gradients, dim=1)
    present = known.present.flatten(0, 1)

    def objective(images: dict[str, torch.Tensor]) -> torch.Tensor:
        gradients = record_gradients(net, images, present, known.labels)
        summed = functional.normalize(gradients.view(groups, batch, -1).sum(dim=1), dim=1)
        return (1.0 - (summed * target).sum(dim=1)).sum()

    shapes = {m: (groups * batch, *net.spec.shapes[m]) for m in net.modalities}
    images = _search(shapes, objective, steps, generator)
    return {m: image.view(groups, batch, *image.shape[1:]) for m, image in images.items()}


def record_gradients(
    net: CrossModalNet,
    images: Mapping[str, torch.Tensor],
    present: torch.Tensor,
    labels: torch.Tensor,
) -> torch.Tensor:
    """Return each record's gradient, [N, P], differentiable in the images.

    Images are [N, *shape]; all that are present, bool [N, M], are shown; labels have N entries.
    """
    module = _Loss(net)
    parameters = {name: p.detach() for name, p in module.named_parameters()}

    def loss(weights: dict[str, torch.Tensor], *record: object) -> torch.Tensor:
        value: torch.Tensor = functional_call(module, weights, record)
        return value

    gradients = vmap(grad(loss), in_dims=(None, 0, 0, 0))(
        parameters, dict(images), present, labels.flatten()
    )
    return torch.cat([gradients[name].flatten(1) for name in parameters], dim=1)


class _Loss(nn.Module):
    def __init__(self, net: CrossModalNet) -> None:
        super().__init__()
        self.net = net

    def forward(
        self, images: dict[str, torch.Tensor], present: torch.Tensor, label: torch.Tensor
    ) -> torch.Tensor:
        batch = {name: x[None] for name, x in images.items()}
        return training_loss(self.net, batch, present[None], present[None], label[None])[0]


def _search(
    shapes: Mapping[str, tuple[int, ...]],
    objective: Callable[[dict[str, torch.Tensor]], torch.Tensor],
    steps: int,
    generator: torch.Generator,
) -> dict[str, torch.Tensor]:
    """Minimise an objective over images in [0, 1], from a noisy grey."""
    images = {
        name: (0.5 + 0.01 * torch.randn(shape, generator=generator)).requires_grad_(True)
        for name, shape in shapes.items()
    }
    optimizer = torch.optim.Adam(list(images.values()), lr=_LEARNING_RATE)
    for step in range(steps):
        fraction = 0.5 + 0.5 * math.cos(math.pi * step / steps)
        optimizer.param_groups[0]["lr"] = _LEARNING_RATE * (0.01 + fraction)
        optimizer.zero_grad()
        penalty = torch.stack([_variation(image) for image in images.values()]).sum()
        (objective(images) + _TOTAL_VARIATION * penalty).backward()
        for image in images.values():
            if image.grad is not None:
                image.grad.sign_()
        optimizer.step()
        with torch.no_grad():
            for image in images.values():
                image.clamp_(0.0, 1.0)
    return {name: image.detach() for name, image in images.items()}


def _variation(images: torch.Tensor) -> torch.Tensor:
    """Return the sum over images of the mean absolute difference of neighbours."""
    axes = range(2, images.ndim)
    return torch.stack([images.diff(dim=axis).abs().flatten(1).mean(1) for axis in axes]).sum()
