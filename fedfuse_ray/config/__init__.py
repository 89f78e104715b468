"""Frozen, validated configuration: models, presets, dotted overrides."""

from fedfuse_ray.config.compression import CompressionConfig
from fedfuse_ray.config.data import DataConfig, DomainConfig, ManifestData, PhantomData, SkewConfig
from fedfuse_ray.config.execution import ExecutionConfig
from fedfuse_ray.config.experiment import Experiment, Paradigm
from fedfuse_ray.config.institutions import HardwareConfig, InstitutionConfig
from fedfuse_ray.config.loading import dump, json_schema, load, validate
from fedfuse_ray.config.model import EncoderConfig, FusionKind, ModelConfig
from fedfuse_ray.config.network import NetworkConfig
from fedfuse_ray.config.privacy import PrivacyConfig
from fedfuse_ray.config.sources import preset_names, system_names
from fedfuse_ray.config.systems import load_system
from fedfuse_ray.config.training import StrategyConfig, TrainingConfig

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
