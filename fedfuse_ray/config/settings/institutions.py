"""Who takes part: institutions, the modalities they own, and their hardware."""

from __future__ import annotations

from pydantic import Field, field_validator

from fedfuse_ray.config.settings.base import Config
from fedfuse_ray.config.settings.model import ModelConfig
from fedfuse_ray.config.settings.privacy import PrivacyConfig

_FIXED_STEPS = frozenset({"record-distributed", "record-local"})


class HardwareConfig(Config):
    """What an institution computes on.

    Attributes:
        num_cpus: Logical CPUs its actor asks of Ray.
        num_gpus: Fraction of a GPU its actor asks of Ray; null takes
            `execution.num_gpus_per_institution`.
        batch_size: Specimens a local step; null takes `training.batch_size`.
        speed: Compute speed relative to the reference: 0.5 takes twice as long.
        local_steps: Most optimizer steps a round; null takes all of `training.local_epochs`.
            `strategy.kind=fednova` keeps those that take many steps from outweighing the others.
        tier: Which of `model.tiers` its encoders are of; empty for the default encoders.
    """

    num_cpus: float = Field(1.0, ge=0.0)
    num_gpus: float | None = Field(None, ge=0.0)
    batch_size: int | None = Field(None, ge=1)
    speed: float = Field(1.0, gt=0.0, allow_inf_nan=False)
    local_steps: int | None = Field(None, ge=1)
    tier: str = ""


class InstitutionConfig(Config):
    """One institution.

    Attributes:
        name: Unique name, used in every table and as the Ray actor's name.
        domain: The domain that its specimens belong to.
        modalities: The modalities that it owns, a subset of its domain's.
        share: Its part of the domain's specimens, relative to the others' shares.
        hardware: What it computes on.
        takes_part: False leaves it out, and its part of the domain's specimens with it: those of
            all others stay as they are.
    """

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    domain: str
    modalities: tuple[str, ...] = Field(min_length=1)
    share: float = Field(1.0, gt=0.0)
    hardware: HardwareConfig = HardwareConfig()
    takes_part: bool = True

    @field_validator("modalities")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("a modality is named twice")
        return value


def check_hardware(
    institutions: tuple[InstitutionConfig, ...], model: ModelConfig, privacy: PrivacyConfig
) -> None:
    """Refuse tiers that nothing defines or uses, and step limits that privacy overrides.

    Raises:
        ValueError: It begins with the field, then the value in quotes, as `load` expects.
    """
    for institution in institutions:
        hardware, field = institution.hardware, f"institutions.{institution.name}.hardware"
        if hardware.tier and hardware.tier not in model.tiers:
            remedy = f"choose among {sorted(model.tiers)}" if model.tiers else "none is defined"
            raise ValueError(
                f"{field}.tier: {hardware.tier!r} is not one of model.tiers; {remedy}, or leave it "
                "empty for the default encoders"
            )
        if hardware.tier and not model.single_encoders:
            raise ValueError(
                f"{field}.tier: {hardware.tier!r} names an encoder of single modalities, and "
                f"model.fusion={model.fusion} has none; choose another fusion or leave the tier "
                "empty"
            )
        if hardware.local_steps is not None and privacy.mode in _FIXED_STEPS:
            raise ValueError(
                f"{field}.local_steps: '{hardware.local_steps}' has no effect under privacy.mode="
                f"{privacy.mode}, whose accounting fixes the number of steps; set it to null"
            )
