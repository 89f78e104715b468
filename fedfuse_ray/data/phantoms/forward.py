"""The nine modalities: which factors each shows, its shape, and its physics."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fedfuse_ray.config.settings.data import DomainConfig
from fedfuse_ray.data.phantoms import environmental, materials, medical
from fedfuse_ray.data.phantoms.factors import ENVIRONMENTAL, MATERIALS, MEDICAL, Family
from fedfuse_ray.data.phantoms.fields import F32
from fedfuse_ray.data.phantoms.scanner import Scanner
from fedfuse_ray.data.specimens import Shape
from fedfuse_ray.errors import InputError

Physics = Callable[[F32, Shape, np.random.Generator], F32]
"""From factors [N, 3], a shape and a stream to the scene as an ideal instrument sees it."""


class ForwardModel(Protocol):
    """How one modality images a specimen.

    Attributes:
        modality: Its name.
        family: The factors that it is about.
        strong: Index of the factor that it shows clearly.
        weak: Index of the factor that it shows with much variation. The third it hides.
    """

    @property
    def modality(self) -> str: ...  # noqa: D102
    @property
    def family(self) -> Family: ...  # noqa: D102
    @property
    def strong(self) -> int: ...  # noqa: D102
    @property
    def weak(self) -> int: ...  # noqa: D102

    def shape(self, image_size: int, signal_length: int) -> Shape:
        """Return the shape of one image [C, H, W] or signal [C, L]."""
        ...

    def render(self, factors: F32, shape: Shape, scanner: Scanner, rng: np.random.Generator) -> F32:
        """Image specimens.

        Args:
            factors: float32 [N, 3].
            shape: The shape of one image.
            scanner: The instrument for each specimen.
            rng: The stream of everything that is not a factor: position, light, noise.

        Returns:
            float32 [N, *shape] in [0, 1].
        """
        ...


@dataclass(frozen=True)
class PhysicalModel:
    """A forward model made of a scene's physics and an instrument; see `ForwardModel`.

    Attributes:
        modality: Its name.
        family: The factors that it is about.
        strong: Index of the factor that it shows clearly.
        weak: Index of the factor that it shows with much variation.
        physics: The scene.
        channels: Channels of an image or a signal.
        signal: Whether it is one-dimensional.
    """

    modality: str
    family: Family
    strong: int
    weak: int
    physics: Physics
    channels: int = 1
    signal: bool = False

    def shape(self, image_size: int, signal_length: int) -> Shape:
        """Return the shape of one image [C, H, W] or signal [C, L]."""
        if self.signal:
            return (self.channels, signal_length)
        return (self.channels, image_size, image_size)

    def render(self, factors: F32, shape: Shape, scanner: Scanner, rng: np.random.Generator) -> F32:
        """Image specimens; see `ForwardModel.render`."""
        scene = np.asarray(self.physics(factors, shape, rng), np.float32)
        return scanner.apply(scene, rng)


_MODELS = (
    PhysicalModel("ct", MEDICAL, 0, 1, medical.ct),
    PhysicalModel("mri", MEDICAL, 1, 2, medical.mri),
    PhysicalModel("histopathology", MEDICAL, 2, 0, medical.histopathology, 3),
    PhysicalModel("electron_microscopy", MATERIALS, 0, 1, materials.electron_microscopy),
    PhysicalModel("spectroscopy", MATERIALS, 1, 2, materials.spectroscopy, signal=True),
    PhysicalModel("xrd", MATERIALS, 2, 0, materials.xrd),
    PhysicalModel("satellite", ENVIRONMENTAL, 0, 1, environmental.satellite, 4),
    PhysicalModel("aerial", ENVIRONMENTAL, 1, 2, environmental.aerial, 3),
    PhysicalModel("ground", ENVIRONMENTAL, 2, 0, environmental.ground, 3),
)
FORWARD_MODELS: dict[str, ForwardModel] = {model.modality: model for model in _MODELS}


def forward_model(
    modality: str, models: Mapping[str, ForwardModel] = FORWARD_MODELS, field: str = "modality"
) -> ForwardModel:
    """Return the forward model of a modality.

    Raises:
        InputError: There is none of that name; `field` says where the name was given.
    """
    if modality in models:
        return models[modality]
    close = difflib.get_close_matches(modality, models, 1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    names = ", ".join(models)
    raise InputError(field, modality, f"no forward model; known are {names}{hint}")


def domain_family(
    domain: str, config: DomainConfig, models: Mapping[str, ForwardModel] = FORWARD_MODELS
) -> Family:
    """Return the family of a domain's modalities.

    Raises:
        InputError: A modality without a forward model, named twice, or of another family than the
            domain's first.
    """
    field = f"data.domains.{domain}.modalities"
    for modality in config.modalities:
        if config.modalities.count(modality) > 1:
            raise InputError(field, modality, "is named twice")
    family = forward_model(config.modalities[0], models, field).family
    for modality in config.modalities[1:]:
        other = forward_model(modality, models, field).family
        if other != family:
            raise InputError(
                field,
                modality,
                f"images {other.name} specimens and {config.modalities[0]!r} {family.name} ones; "
                "a specimen is one of them, so put it in a domain of its own",
            )
    return family
