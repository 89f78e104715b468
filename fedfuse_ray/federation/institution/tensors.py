"""Specimens as tensors: images of trainable encoders, features of frozen ones, computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from fedfuse_ray.data.specimens import Specimens
from fedfuse_ray.models.encoders import feature_count, kind_for
from fedfuse_ray.models.features import FrozenFeatures
from fedfuse_ray.models.initial import frozen_backbone, frozen_projection, project
from fedfuse_ray.models.spec import ModelSpec

_CHUNK = 256


@dataclass(frozen=True)
class TensorData:
    """A set of specimens, ready for the network.

    Attributes:
        modalities: In the order of `present`'s columns.
        inputs: Modality to images float16 [N, *shape] (often a view of the file), or to features
            float32 [N, F] where the backbone is frozen.
        present: Which images there are, bool [N, M].
        labels: Class indices, int64 [N].
        device: Where batches go.
        units: Which unit of privacy each specimen belongs to, int64 [N], counted from 0 without a
            gap; None where each is one by itself.
    """

    modalities: tuple[str, ...]
    inputs: dict[str, torch.Tensor]
    present: torch.Tensor
    labels: torch.Tensor
    device: torch.device
    units: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def unit_count(self) -> int:
        """How many units of privacy there are."""
        return len(self) if self.units is None else int(self.units.max()) + 1

    def batch(self, rows: torch.Tensor | slice) -> dict[str, torch.Tensor]:
        """Return the inputs of some specimens as float32, on the device."""
        return {m: x[rows].to(self.device, torch.float32) for m, x in self.inputs.items()}


class BackboneCache:
    """Frozen backbones of a process, each built once."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._backbones: dict[tuple[str, str], nn.Module] = {}
        self._kept: dict[tuple[str, str], FrozenFeatures] = {}

    def features(
        self,
        modality: str,
        images: torch.Tensor,
        device: torch.device,
        tier: str = "",
        chunk: int = _CHUNK,
    ) -> torch.Tensor:
        """Return a tier's frozen features [N, F] of images [N, *shape], taken chunk by chunk."""
        backbone = self._backbone(modality, tier).to(device)
        with torch.inference_mode():
            chunks = [
                backbone(images[start : start + chunk].to(device, torch.float32)).cpu()
                for start in range(0, len(images), chunk)
            ]
        if not chunks:
            return torch.zeros(0, backbone.features)  # type: ignore[call-overload]
        return torch.cat(chunks).clone()

    def costly(self, modality: str, tier: str = "") -> bool:
        """Whether a tier's features of a modality are worth keeping on disk."""
        config = self._spec.config.encoder_for(modality, tier)
        frozen = self._spec.frozen(modality, tier)
        return frozen and kind_for(config, self._spec.shapes[modality]) != "cnn"

    def kept(self, modality: str, device: torch.device, tier: str = "") -> FrozenFeatures:
        """Return a tier's features that are kept on disk."""
        key = (modality, tier)
        if key not in self._kept:
            backbone, shape = self._backbone(modality, tier), self._spec.shapes[modality]
            self._kept[key] = FrozenFeatures(backbone, shape, feature_count(backbone), device)
        return self._kept[key]

    def projected(self, modality: str, features: torch.Tensor, tier: str = "") -> torch.Tensor:
        """Return features [N, F] as the encoder's config has them: projected, or as they are."""
        if self._spec.config.encoder_for(modality, tier).projection is None:
            return features
        matrix = frozen_projection(self._spec, modality, tier, features.shape[1])
        return project(features, matrix)

    def _backbone(self, modality: str, tier: str) -> nn.Module:
        key = (modality, tier)
        if key not in self._backbones:
            self._backbones[key] = frozen_backbone(self._spec, modality, tier)
        return self._backbones[key]


def to_tensors(
    specimens: Specimens,
    spec: ModelSpec,
    backbones: BackboneCache,
    device: torch.device,
    tier: str = "",
    *,
    of_patients: bool = False,
) -> TensorData:
    """Turn specimens into what a tier's networks take.

    Images stay as they are stored until a batch asks for them. `of_patients` says that a patient's
    specimens are one unit of privacy; then all patients are known.
    """
    inputs = {}
    for column, modality in enumerate(specimens.modalities):
        stored = specimens.images[modality]
        if not spec.frozen(modality, tier):
            inputs[modality] = torch.from_numpy(_writable(stored))
            continue
        if backbones.costly(modality, tier):
            kept, present = backbones.kept(modality, device, tier), specimens.present[:, column]
            features = torch.zeros(len(specimens), kept.features)
            features[torch.from_numpy(present.copy())] = torch.from_numpy(kept.of(stored[present]))
        else:
            images = torch.from_numpy(_writable(stored))
            features = backbones.features(modality, images, device, tier)
        inputs[modality] = backbones.projected(modality, features, tier)
    return TensorData(
        modalities=specimens.modalities,
        inputs=inputs,
        present=torch.from_numpy(specimens.present.copy()),
        labels=torch.from_numpy(specimens.labels.copy()),
        device=device,
        units=_codes(specimens.patients) if of_patients else None,
    )


def _codes(names: Sequence[str]) -> torch.Tensor:
    """Return names as numbers, in order of first appearance."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([numbers[name] for name in names], dtype=torch.int64)


def _writable(images: np.ndarray) -> np.ndarray:
    """Return an alias that torch takes without a warning; nobody writes to it.

    Mapped files are read-only, and torch has no read-only tensors.
    """
    if images.flags.writeable:
        return images
    interface = dict(images.__array_interface__)
    interface["data"] = (interface["data"][0], False)
    alias = _Alias(interface, images)
    return np.asarray(alias)


class _Alias:
    """Holds an array's memory alive under another description of it."""

    def __init__(self, interface: dict[str, object], owner: object) -> None:
        self.__array_interface__ = interface
        self.owner = owner
