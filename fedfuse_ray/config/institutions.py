"""Who takes part: institutions, the modalities they own, and their hardware."""

from __future__ import annotations

from pydantic import Field, field_validator

from fedfuse_ray.config.base import Config


class HardwareConfig(Config):
    """What an institution computes on.

    Attributes:
        num_cpus: Logical CPUs its actor asks of Ray.
        num_gpus: Fraction of a GPU its actor asks of Ray; null takes
            `execution.num_gpus_per_institution`.
        batch_size: Specimens a local step; null takes `training.batch_size`.
    """

    num_cpus: float = Field(1.0, ge=0.0)
    num_gpus: float | None = Field(None, ge=0.0)
    batch_size: int | None = Field(None, ge=1)


class InstitutionConfig(Config):
    """One institution.

    Attributes:
        name: Unique name, used in every table and as the Ray actor's name.
        domain: The domain that its specimens belong to.
        modalities: The modalities that it owns, a subset of its domain's.
        share: Its part of the domain's specimens, relative to the others' shares.
        hardware: What it computes on.
    """

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    domain: str
    modalities: tuple[str, ...] = Field(min_length=1)
    share: float = Field(1.0, gt=0.0)
    hardware: HardwareConfig = HardwareConfig()

    @field_validator("modalities")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("a modality is named twice")
        return value
