"""The shape of a network, without its weights: small, public, and known before the first round."""

from __future__ import annotations

from dataclasses import dataclass

from fedfuse_ray.config.model import ModelConfig

ENCODER, FUSION, HEAD = "encoder/", "fusion", "head/"
WITHOUT_FUSION_BLOCK = frozenset({"mean", "late", "early", "none"})


@dataclass(frozen=True)
class ModelSpec:
    """What decides every block's name and size.

    Attributes:
        config: The model's config.
        domains: Each domain's modalities, in order.
        classes: Each domain's number of classes.
        shapes: Each modality's shape, [C, H, W] or [C, L].
        seed: Root of the weights' random streams.
    """

    config: ModelConfig
    domains: dict[str, tuple[str, ...]]
    classes: dict[str, int]
    shapes: dict[str, tuple[int, ...]]
    seed: int

    @property
    def slots(self) -> int:
        """Most modalities that a domain has: the fusion's width for `concat`."""
        return max(len(modalities) for modalities in self.domains.values())

    def block_names(self, domain: str, modalities: tuple[str, ...]) -> tuple[str, ...]:
        """Return the blocks that an owner of `modalities` trains, in the model's order."""
        fusion = self.config.fusion
        if fusion == "early":
            return (f"{ENCODER}early/{domain}", f"{HEAD}{domain}")
        names = [ENCODER + modality for modality in modalities]
        if fusion not in WITHOUT_FUSION_BLOCK:
            names.append(FUSION)
        if fusion in ("late", "none"):
            names += [f"{HEAD}{domain}/{modality}" for modality in modalities]
        else:
            names.append(HEAD + domain)
        return tuple(names)

    def all_blocks(self) -> tuple[str, ...]:
        """Return every block of the federation once, domain by domain."""
        names: dict[str, None] = {}
        for domain, modalities in self.domains.items():
            names |= dict.fromkeys(self.block_names(domain, modalities))
        return tuple(names)

    def frozen(self, modality: str) -> bool:
        """Whether the modality's backbone is frozen, so that the network takes its features."""
        early = self.config.fusion == "early"
        return not early and not self.config.encoder_for(modality).trainable

    def signature(self) -> tuple[object, ...]:
        """Return what two specs share when their frozen features are the same."""
        return (self.config.model_dump_json(), tuple(sorted(self.shapes.items())), self.seed)
