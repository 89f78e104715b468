"""Encoders pre-trained on public phantoms: they learn to read the physical factors off an image.

Public phantoms are drawn anew, over the whole space of factors and with other scanners than any
institution's, so no site's data and no class of the federation is in them. Random processes as
public pre-training data: Tang et al., 2023, DP-RandP, arXiv 2306.06076.
"""

from __future__ import annotations

import io
from collections.abc import Callable

from fedfuse_ray import rng
from fedfuse_ray.errors import InputError
from fedfuse_ray.files import write_atomic
from fedfuse_ray.models.spec import ModelSpec

_SPECIMENS = 6144
_EPOCHS = 12
_BATCH = 64
_LEARNING_RATE = 2e-3
_SEED = 20_230_608


def ensure(spec: ModelSpec, tell: Callable[[str], None] = lambda text: None) -> None:
    """Pre-train, once for each architecture, what the spec asks of `public` weights.

    Raises:
        InputError: A modality without a forward model has no public phantoms.
    """
    for modality, shape in spec.shapes.items():
        config = spec.config.encoder_for(modality)
        if config.weights != "public":
            continue
        from fedfuse_ray.models.encoders import public_weights_path

        path = public_weights_path(config, modality, shape)
        if not path.is_file():
            tell(f"Pre-training the {modality} encoder on public phantoms")
            state = _pretrain(spec, modality)
            write_atomic(path, lambda file, state=state: file.write(state))  # type: ignore[misc]


def _pretrain(spec: ModelSpec, modality: str) -> bytes:
    """Train a backbone to regress the factors; returns its state dict as torch saves it."""
    import torch
    from torch import nn

    from fedfuse_ray.data.phantoms import FORWARD_MODELS, Resolution, public
    from fedfuse_ray.models.encoders import build_backbone, feature_count
    from fedfuse_ray.models.initial import seeded

    if modality not in FORWARD_MODELS:
        known = ", ".join(FORWARD_MODELS)
        raise InputError(
            f"model.encoders.{modality}.weights", "public", f"phantoms exist for: {known}"
        )
    config, shape = spec.config.encoder_for(modality), spec.shapes[modality]
    torch.set_num_threads(1)
    resolution = Resolution(image_size=shape[-1], signal_length=shape[-1])
    images, factors = public(modality, _SPECIMENS, seed=_SEED, resolution=resolution)
    with seeded(_SEED, "public encoder", modality):
        backbone = build_backbone(config, shape)
        head = nn.Linear(feature_count(backbone), factors.shape[1])
    inputs, targets = torch.from_numpy(images), torch.from_numpy(factors)
    parameters = [*backbone.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=_LEARNING_RATE)
    steps = _EPOCHS * -(-_SPECIMENS // _BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = rng.generator(_SEED, "public batches", modality)
    for _ in range(_EPOCHS):
        for rows in torch.split(torch.from_numpy(generator.permutation(_SPECIMENS)), _BATCH):
            guess = head(backbone(inputs[rows].float()))
            loss = nn.functional.mse_loss(guess, targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    buffer = io.BytesIO()
    torch.save(backbone.state_dict(), buffer)
    return buffer.getvalue()
