"""Gradient inversion: images from a gradient, by matching its direction.

Adversary: knows the network, its weights, the label, and one view of the gradient
(`observations`). It searches images whose gradient points the same way, with a penalty on total
variation, stepping along the sign of the derivative. Source: Geiping et al., 2020, arXiv
2003.14053, Eq. 4 and section 5; Zhu et al., 2019, arXiv 1906.08935, for batches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from fedfuse_ray.federation.local import training_loss
from fedfuse_ray.models.net import CrossModalNet

_LEARNING_RATE = 0.1
_TOTAL_VARIATION = 1e-3


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


def invert(
    net: CrossModalNet, known: Known, steps: int, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Reconstruct the images behind gradients.

    Args:
        net: The network, at the weights where the gradients were taken.
        known: What the attacker has.
        steps: Steps of the search.
        generator: Draws the images to start from.

    Returns:
        Modality to images [G, B, *shape] in [0, 1].
    """
    groups, batch = known.labels.shape
    images = {
        m: torch.rand(groups * batch, *net.spec.shapes[m], generator=generator)
        for m in net.modalities
    }
    for image in images.values():
        image.requires_grad_(True)
    optimizer = torch.optim.Adam(list(images.values()), lr=_LEARNING_RATE)
    target = functional.normalize(known.gradients, dim=1)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = _LEARNING_RATE * (0.5 + 0.5 * math.cos(math.pi * step / steps)) + 1e-3
        optimizer.zero_grad()
        gradients = record_gradients(net, images, known.present.flatten(0, 1), known.labels)
        summed = gradients.view(groups, batch, -1).sum(dim=1)
        distance = (1.0 - (functional.normalize(summed, dim=1) * target).sum(dim=1)).sum()
        (distance + _TOTAL_VARIATION * sum(_variation(x) for x in images.values())).backward()
        for image in images.values():
            if image.grad is not None:
                image.grad.sign_()
        optimizer.step()
        with torch.no_grad():
            for image in images.values():
                image.clamp_(0.0, 1.0)
    return {
        m: image.detach().view(groups, batch, *image.shape[1:]) for m, image in images.items()
    }


def record_gradients(
    net: CrossModalNet,
    images: Mapping[str, torch.Tensor],
    present: torch.Tensor,
    labels: torch.Tensor,
) -> torch.Tensor:
    """Return each record's gradient, [N, P], differentiable in the images.

    Args:
        net: The network.
        images: Modality to [N, *shape].
        present: Which modalities there are, bool [N, M]; all present ones are shown.
        labels: [N], or any shape with N entries.
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


def _variation(images: torch.Tensor) -> torch.Tensor:
    """Return the sum over images of the mean absolute difference of neighbours."""
    axes = range(2, images.ndim)
    return torch.stack([images.diff(dim=axis).abs().flatten(1).mean(1) for axis in axes]).sum()
