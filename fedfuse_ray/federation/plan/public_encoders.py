"""Encoders pre-trained on public phantoms: they learn to read the physical factors off an image.

Public phantoms are drawn apart from all data, over the whole space of factors and with other
scanners than any institution's, so no site's data and no class of the federation is in them. Random
processes as public pre-training data: Tang et al., 2023, DP-RandP, arXiv 2306.06076.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fedfuse_ray import rng
from fedfuse_ray.errors import InputError
from fedfuse_ray.files import write_atomic
from fedfuse_ray.models.spec import ModelSpec

if TYPE_CHECKING:
    import torch

    from fedfuse_ray.data.phantoms import ForwardModel

_EPOCHS = 32
_SPECIMENS = 6144
_BATCH = 64
_LEARNING_RATE = 2e-3
_SCANNERS = 0.6
_SEED = 20_230_608


def ensure(
    spec: ModelSpec, tell: Callable[[str], None] = lambda text: None, into: Path | None = None
) -> None:
    """Pre-train, once for each architecture, what the spec asks of `public` weights.

    Args:
        spec: The network.
        tell: Called before each encoder that has to be trained.
        into: Where new weights go; the cache by default.

    Raises:
        InputError: A modality without a forward model has no public phantoms.
    """
    for modality, tier in spec.encoders():
        config, shape = spec.config.encoder_for(modality, tier), spec.shapes[modality]
        if config.weights != "public":
            continue
        from fedfuse_ray.models.encoders import public_weights_path

        path = public_weights_path(config, modality, shape, spec.origin(modality))
        if not path.is_file():
            _check_known(spec, modality, tier)
            tell(f"Pre-training the {modality} encoder on public phantoms")
            state = _pretrain(spec, modality, tier)
            if into is not None:
                path = into / path.name
            write_atomic(path, lambda file, state=state: file.write(state))  # type: ignore[misc]


def _models(spec: ModelSpec, modality: str) -> Mapping[str, ForwardModel]:
    """Return the forward models among which the modality's is, if there is one."""
    from fedfuse_ray.data.phantoms.from_file import file_digest, known_models

    if modality not in spec.origins:
        return known_models(())
    file, digest = spec.origins[modality]
    if file_digest(file) != digest:
        remedy = "changed after the run began, or differs from node to node"
        raise InputError("data.forward_models", file, remedy)
    return known_models([file])


def _check_known(spec: ModelSpec, modality: str, tier: str) -> None:
    models = _models(spec, modality)
    if modality not in models:
        where = f"model.tiers.{tier}.weights" if tier else f"model.encoders.{modality}.weights"
        raise InputError(
            where,
            "public",
            f"there are no phantoms of {modality!r}; phantoms exist for "
            f"{', '.join(models)} only; use random, torchvision or a file's path",
        )


def _pretrain(spec: ModelSpec, modality: str, tier: str = "") -> bytes:
    """Train a backbone to read the factors, on fresh phantoms every epoch; returns its state."""
    import torch
    from torch import nn

    from fedfuse_ray.models.encoders import FactorReader, build_backbone, feature_count
    from fedfuse_ray.models.initial import seeded

    config, shape = spec.config.encoder_for(modality, tier), spec.shapes[modality]
    torch.set_num_threads(1)
    with seeded(_SEED, "public encoder", modality):
        plain = config.model_copy(update={"weights": "random"})
        backbone = build_backbone(plain, shape)
        reader = FactorReader(backbone, feature_count(backbone))
    optimizer = torch.optim.AdamW(reader.parameters(), lr=_LEARNING_RATE)
    steps = _EPOCHS * -(-_SPECIMENS // _BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(_EPOCHS):
        images, factors = _phantoms(_models(spec, modality), modality, shape, epoch)
        for rows in torch.split(torch.arange(_SPECIMENS), _BATCH):
            loss = nn.functional.mse_loss(reader(images[rows].float()), factors[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    buffer = io.BytesIO()
    torch.save(reader.state_dict(), buffer)
    return buffer.getvalue()


def _phantoms(
    models: Mapping[str, ForwardModel], modality: str, shape: tuple[int, ...], epoch: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an epoch's public phantoms, float16 [N, *shape], and their factors [N, 3]."""
    import torch

    from fedfuse_ray.data.phantoms import Resolution, public

    images, factors = public(
        modality,
        _SPECIMENS,
        seed=rng.derive(_SEED, "public phantoms", epoch) >> 1,
        resolution=Resolution(image_size=shape[-1], signal_length=shape[-1]),
        feature=_SCANNERS,
        models=models,
    )
    return torch.from_numpy(images), torch.from_numpy(factors)
