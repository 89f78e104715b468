"""The shape of a network, without its weights: small, public, and known before the first round."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from fedfuse_ray.config.settings.model import ModelConfig

ENCODER, FUSION, HEAD = "encoder/", "fusion", "head/"
TIER = "@"
EARLY, SHARED = "early/", "shared/"
"""What stands in a modality's place in the names of a domain's encoders."""
WITHOUT_FUSION_BLOCK = frozenset({"mean", "late", "early", "intermediate", "product", "none"})
SINGLE_HEADS = frozenset({"late", "none"})
"""Fusions with a block of its own for each modality's head, and none for the domain's."""


@dataclass(frozen=True)
class ModelSpec:
    """What decides every block's name and size.

    Attributes:
        config: The model's config.
        domains: Each domain's modalities, in order.
        classes: Each domain's number of classes.
        shapes: Each modality's shape, [C, H, W] or [C, L].
        seed: Root of the weights' random streams.
        tiers: Each tier's modalities, of those tiers that somebody is of.
        origins: The file, and the digest of its content, of each modality's forward model that is
            not the library's; `public` weights belong to it.
    """

    config: ModelConfig
    domains: dict[str, tuple[str, ...]]
    classes: dict[str, int]
    shapes: dict[str, tuple[int, ...]]
    seed: int
    tiers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    origins: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def slots(self) -> int:
        """Most modalities that a domain has: the fusion's width for `concat`."""
        return max(len(modalities) for modalities in self.domains.values())

    @property
    def heads_only(self) -> bool:
        """Whether frozen features are the embeddings, so that no encoder has a block."""
        return self.config.embedding_dim is None

    @property
    def width(self) -> int:
        """Length of an embedding."""
        return self.config.embedding_dim or self.config.encoder.projection or 0

    @property
    def depth(self) -> int:
        """Stages of the CNN that a modality has for itself under `intermediate` fusion."""
        return self.config.fusion_depth or 0

    def block_names(
        self, domain: str, modalities: tuple[str, ...], tier: str = ""
    ) -> tuple[str, ...]:
        """Return the blocks that an owner of `modalities` trains, in the model's order."""
        fusion = self.config.fusion
        if self.config.stacks_inputs:
            return (early_block(domain), f"{HEAD}{domain}")
        names = [] if self.heads_only else [encoder_block(m, tier) for m in modalities]
        if fusion not in WITHOUT_FUSION_BLOCK:
            names.append(FUSION)
        if fusion == "intermediate":
            names.append(shared_block(domain))
        if fusion not in SINGLE_HEADS:
            names.append(HEAD + domain)
        if fusion in SINGLE_HEADS or fusion == "hybrid":
            names += [f"{HEAD}{domain}/{modality}" for modality in modalities]
        return tuple(names)

    def all_blocks(self) -> tuple[str, ...]:
        """Return every block of the federation once, domain by domain."""
        names: dict[str, None] = {}
        for domain, modalities in self.domains.items():
            names |= dict.fromkeys(self.block_names(domain, modalities))
        for tier, modalities in () if self.heads_only else self.tiers.items():
            names |= dict.fromkeys(encoder_block(modality, tier) for modality in modalities)
        return tuple(names)

    def encoders(self) -> Iterator[tuple[str, str]]:
        """Yield modality and tier of every encoder; the default tier's, named "", come first."""
        yield from ((modality, "") for modality in self.shapes)
        for tier, modalities in self.tiers.items():
            yield from ((modality, tier) for modality in modalities)

    def frozen(self, modality: str, tier: str = "") -> bool:
        """Whether the encoder's backbone is frozen, so that the network takes its features."""
        single = self.config.single_encoders
        return single and not self.config.encoder_for(modality, tier).trainable

    def signature(self) -> tuple[object, ...]:
        """Return what two specs share when their frozen features are the same."""
        shapes, origins = (tuple(sorted(d.items())) for d in (self.shapes, self.origins))
        return (self.config.model_dump_json(), shapes, self.seed, origins)

    def origin(self, modality: str) -> str:
        """Return the digest of the file that defines a modality; empty for the library's."""
        return self.origins[modality][1] if modality in self.origins else ""


def early_block(domain: str) -> str:
    """Return the name of the encoder of a domain's stacked inputs."""
    return f"{ENCODER}{EARLY}{domain}"


def shared_block(domain: str) -> str:
    """Return the name of the stages that a domain shares after its feature maps are averaged."""
    return f"{ENCODER}{SHARED}{domain}"


def encoder_block(modality: str, tier: str = "") -> str:
    """Return the name of an encoder's block: `encoder/ct`, or `encoder/ct@edge` in a tier."""
    return ENCODER + (f"{modality}{TIER}{tier}" if tier else modality)


def encoder_of_block(name: str) -> tuple[str, str]:
    """Return modality and tier of an encoder's block; neither's name holds an `@`."""
    modality, _, tier = name.removeprefix(ENCODER).partition(TIER)
    return modality, tier
