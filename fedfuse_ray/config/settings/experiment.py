"""The whole experiment: everything that decides a result, in one frozen tree."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from pydantic import Field, model_validator

from fedfuse_ray.config.settings.base import Config
from fedfuse_ray.config.settings.composition import (
    check_aggregation,
    check_compression,
    check_contrastive,
    check_encryption,
    check_exposures,
    check_fusion_depth,
    check_selection,
    check_weighting,
)
from fedfuse_ray.config.settings.compression import CompressionConfig
from fedfuse_ray.config.settings.data import DataConfig, PhantomData
from fedfuse_ray.config.settings.encoders import check_encoders
from fedfuse_ray.config.settings.execution import ExecutionConfig
from fedfuse_ray.config.settings.institutions import InstitutionConfig, check_hardware
from fedfuse_ray.config.settings.model import ModelConfig
from fedfuse_ray.config.settings.network import NetworkConfig
from fedfuse_ray.config.settings.privacy import PrivacyConfig
from fedfuse_ray.config.settings.selection import SelectAllConfig, SelectionConfig
from fedfuse_ray.config.settings.training import FedAvgConfig, StrategyConfig, TrainingConfig

Paradigm = Literal[
    "centralized",
    "centralized_dp",
    "isolated",
    "federated",
    "federated_dp",
    "fedfuse",
    "fedfuse_nonprivate",
]
PRIVATE_PARADIGMS = frozenset({"centralized_dp", "federated_dp", "fedfuse"})

_VGG_SMALLEST = 32


_NOT_PRIVATE = {
    "scaffold": "sends control variates, which no privacy mode covers",
    # It scales the noised mean by the steps of those who were sampled: 0 says that nobody was.
    "fednova": "scales sums by private numbers of steps, which tells who took part",
}
"""Strategies that no privacy mode covers, and why."""


class Experiment(Config):
    """A federation and what it trains.

    Attributes:
        preset: Name of the preset or file that this came from.
        seed: Root of every random stream.
        paradigm: What is trained: see `fedfuse_ray.federation.plan.paradigms`.
        privacy: What is protected; only under `fedfuse`, `federated_dp` and `centralized_dp`.
        compression: How updates and the model are encoded.
        network: What they cross, on a virtual clock.
        selection: Which institutions take part in a round.
        replicas: Each listed institution stands for so many alike, each with as much data of its
            own; for scaling tests.
    """

    preset: str = "custom"
    seed: int = Field(0, ge=0, lt=2**63)
    paradigm: Paradigm = "fedfuse_nonprivate"
    replicas: int = Field(1, ge=1, le=100_000)
    data: DataConfig
    institutions: tuple[InstitutionConfig, ...] = ()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig
    strategy: StrategyConfig = FedAvgConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    compression: CompressionConfig = CompressionConfig()
    network: NetworkConfig = NetworkConfig()
    selection: SelectionConfig = SelectAllConfig()
    execution: ExecutionConfig = ExecutionConfig()

    @model_validator(mode="after")
    def _institutions_fit_domains(self) -> Experiment:
        names = Counter(i.name for i in self.institutions)
        if twice := [name for name, count in names.items() if count > 1]:
            raise ValueError(f"institutions: {twice[0]!r} is named twice; names are unique")
        if isinstance(self.data, PhantomData):
            if not self.institutions:
                raise ValueError("institutions: none listed; a federation needs at least one")
            _check_ownership(self.data, self.institutions)
        return self

    @model_validator(mode="after")
    def _hardware_fits(self) -> Experiment:
        check_hardware(self.institutions, self.model, self.privacy)
        return self

    @model_validator(mode="after")
    def _encoders_fit(self) -> Experiment:
        check_fusion_depth(self.model)
        check_encoders(self.model)
        configs = {"encoder": self.model.encoder}
        configs |= {f"encoders.{name}": c for name, c in self.model.encoders.items()}
        configs |= {f"tiers.{name}": c for name, c in self.model.tiers.items()}
        for name, config in configs.items():
            size = self.data.image_size or _VGG_SMALLEST
            if config.kind == "vgg16" and size < _VGG_SMALLEST:
                raise ValueError(
                    f"model.{name}.kind: 'vgg16' halves images five times; set data.image_size to "
                    f"{_VGG_SMALLEST} or more"
                )
        return self

    @model_validator(mode="after")
    def _privacy_fits_paradigm(self) -> Experiment:
        private = self.paradigm in PRIVATE_PARADIGMS
        if private and not self.privacy.enabled:
            raise ValueError(
                f"privacy.mode: 'none' under paradigm {self.paradigm!r}; choose a mode, or the "
                "paradigm fedfuse_nonprivate or federated"
            )
        if self.privacy.enabled and not private:
            raise ValueError(
                f"privacy.mode: {self.privacy.mode!r} under paradigm {self.paradigm!r}, which "
                "protects nothing; set it to none, or choose fedfuse or federated_dp"
            )
        if self.paradigm == "centralized_dp" and self.privacy.mode != "record-local":
            raise ValueError(
                f"privacy.mode: {self.privacy.mode!r} under paradigm 'centralized_dp', where the "
                "holder of the pooled records adds the noise; set it to record-local"
            )
        if self.privacy.enabled and self.strategy.kind in _NOT_PRIVATE:
            raise ValueError(
                f"strategy.kind: {self.strategy.kind!r} {_NOT_PRIVATE[self.strategy.kind]}; use "
                "fedavg, fedprox, fedadam or fedyogi"
            )
        if self.privacy.enabled:
            self.privacy.noise_factors(self.training.rounds)
        check_contrastive(self.training, self.model, self.privacy, self.strategy.kind)
        check_compression(self.compression, self.privacy)
        check_exposures(self.privacy, self.compression, self.training.rounds)
        check_encryption(
            self.compression, self.privacy, self.network, self.strategy, self.selection.kind
        )
        check_aggregation(self.network, self.privacy, self.compression, self.strategy.kind)
        check_selection(self.selection.kind, self.network, self.privacy)
        check_weighting(self.strategy.weighting, self.network, self.privacy, self.compression)
        return self


def _check_ownership(data: PhantomData, institutions: tuple[InstitutionConfig, ...]) -> None:
    owned: dict[str, set[str]] = {domain: set() for domain in data.domains}
    for institution in (i for i in institutions if i.takes_part):
        if institution.domain not in data.domains:
            raise ValueError(
                f"institutions.{institution.name}.domain: {institution.domain!r} is not one of "
                f"{sorted(data.domains)}"
            )
        unknown = set(institution.modalities) - set(data.domains[institution.domain].modalities)
        if unknown:
            raise ValueError(
                f"institutions.{institution.name}.modalities: {sorted(unknown)[0]!r} is not one "
                f"of {institution.domain}'s {list(data.domains[institution.domain].modalities)}"
            )
        owned[institution.domain] |= set(institution.modalities)
    for domain, config in data.domains.items():
        if orphan := [m for m in config.modalities if m not in owned[domain]]:
            raise ValueError(
                f"data.domains.{domain}.modalities: nobody owns {orphan[0]!r}; give it to an "
                "institution or drop it"
            )
