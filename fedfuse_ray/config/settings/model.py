"""The network: encoders, their weights, and the fusion."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fedfuse_ray.config.settings.base import Config

FusionKind = Literal[
    "attention", "mean", "concat", "early", "intermediate", "late", "hybrid", "none"
]
EncoderKind = Literal["cnn", "resnet50", "vgg16", "efficientnet_b0"]
CNN_STAGES = 3
"""Stages of the small CNN: the greatest depth at which `intermediate` fusion fuses."""
TierName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]


class EncoderConfig(Config):
    """One modality's encoder: a backbone, then a linear projection to the embedding.

    Attributes:
        kind: The backbone's architecture; one-dimensional signals always use the small CNN's
            one-dimensional form.
        weights: `random`, `public` (pre-trained on generated public phantoms, never on a site's
            data), `torchvision` (ImageNet, downloaded by torchvision), or a file's path.
        trainable: False freezes the backbone: its features are computed once and kept, and only
            the projection is trained and sent.
        width: Channels of the small CNN's first stage.
    """

    kind: EncoderKind = "cnn"
    weights: str = "random"
    trainable: bool = True
    width: int = Field(16, ge=4, le=256)


class TransferConfig(Config):
    """Weights that are taken over from another run instead of being drawn.

    Attributes:
        run: The result folder of a finished or interrupted federation.
        blocks: Block of this run to block of that one, as `encoder/ct: encoder/xrd`; empty takes
            every block of the same name and size.
    """

    run: str
    blocks: dict[str, str] = Field({})


class ModelConfig(Config):
    """The CrossModalNet.

    Attributes:
        embedding_dim: Length of each modality's embedding.
        fusion: How the modalities present become one prediction. `attention`, `mean` and `concat`
            fuse embeddings, `early` stacks raw inputs, `intermediate` averages feature maps,
            `late` averages the predictions of single modalities, `hybrid` averages those with
            the prediction over attention's embedding. `none` trains a single-modality model each
            and never fuses.
        fusion_depth: Stages of the small CNN that each modality has for itself before
            `intermediate` fusion; its domain shares those after it. 0 is where `early` fuses.
        modality_dropout: Probability that a present modality is hidden from the fusion while
            training; at least one always stays.
        auxiliary_weight: Weight of the mean single-modality loss beside the fused loss.
        encoder: The default encoder.
        encoders: Encoders that differ from the default, by modality.
        tiers: Encoders of weaker hardware, by tier. An institution whose `hardware.tier` names
            one trains it for all of its modalities, averaged among that tier's institutions;
            fusion and heads are everyone's, since embeddings have one length. The global model is
            scored with the default encoders.
        transfer: Blocks that start from another run's weights; null draws all from the seed.
    """

    embedding_dim: int = Field(64, ge=4, le=4096)
    fusion: FusionKind = "attention"
    fusion_depth: int | None = Field(None, ge=0, le=CNN_STAGES)
    modality_dropout: float = Field(0.3, ge=0.0, lt=1.0)
    auxiliary_weight: float = Field(0.3, ge=0.0)
    encoder: EncoderConfig = EncoderConfig()
    encoders: dict[str, EncoderConfig] = Field({})
    tiers: dict[TierName, EncoderConfig] = Field({})
    transfer: TransferConfig | None = None

    @property
    def stacks_inputs(self) -> bool:
        """Whether modalities meet as raw inputs, before any encoder."""
        return self.fusion == "early" or (self.fusion == "intermediate" and not self.fusion_depth)

    @property
    def single_encoders(self) -> bool:
        """Whether each modality has a whole encoder of its own."""
        return self.fusion not in ("early", "intermediate")

    def encoder_for(self, modality: str, tier: str = "") -> EncoderConfig:
        """Return the encoder's config of one modality, at institutions of a tier."""
        return self.tiers[tier] if tier else self.encoders.get(modality, self.encoder)
