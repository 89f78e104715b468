"""Frozen, validated configuration: models, presets, dotted overrides."""

from fedfuse_ray.config.settings.compression import CompressionConfig
from fedfuse_ray.config.settings.data import (
    DataConfig,
    DomainConfig,
    ManifestData,
    PhantomData,
    SkewConfig,
)
from fedfuse_ray.config.settings.execution import ExecutionConfig
from fedfuse_ray.config.settings.experiment import Experiment, Paradigm
from fedfuse_ray.config.settings.institutions import HardwareConfig, InstitutionConfig
from fedfuse_ray.config.settings.model import EncoderConfig, FusionKind, ModelConfig
from fedfuse_ray.config.settings.network import NetworkConfig
from fedfuse_ray.config.settings.privacy import PrivacyConfig
from fedfuse_ray.config.settings.training import StrategyConfig, TrainingConfig
from fedfuse_ray.config.sources.loading import dump, json_schema, load, validate
from fedfuse_ray.config.sources.systems import load_system
from fedfuse_ray.config.sources.trees import preset_names, system_names

__all__ = [
    "CompressionConfig",
    "DataConfig",
    "DomainConfig",
    "EncoderConfig",
    "ExecutionConfig",
    "Experiment",
    "FusionKind",
    "HardwareConfig",
    "InstitutionConfig",
    "ManifestData",
    "ModelConfig",
    "NetworkConfig",
    "Paradigm",
    "PhantomData",
    "PrivacyConfig",
    "SkewConfig",
    "StrategyConfig",
    "TrainingConfig",
    "dump",
    "json_schema",
    "load",
    "load_system",
    "preset_names",
    "system_names",
    "validate",
]
