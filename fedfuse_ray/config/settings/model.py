"""The network: encoders, their weights, and the fusion."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from fedfuse_ray.config.settings.base import Config

FusionKind = Literal[
    "attention", "mean", "concat", "early", "intermediate", "late", "hybrid", "product", "none"
]
EncoderKind = Literal["cnn", "resnet50", "vgg16", "efficientnet_b0", "timm", "minirocket"]
NAMED_WEIGHTS = ("random", "public", "torchvision", "packaged", "hub")
"""What `weights` may name; anything else is a file's path."""
CNN_STAGES = 3
"""Stages of the small CNN: the greatest depth at which `intermediate` fusion fuses."""
TierName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]


class EncoderConfig(Config):
    """One modality's encoder: a backbone, then a linear projection to the embedding.

    Attributes:
        kind: The backbone's architecture. `timm` is any of that library's, by `name`. `minirocket`
            is a fixed bank of convolutions over one-dimensional signals, which a frozen `timm`
            encoder uses for them too; every other kind takes the small CNN's one-dimensional form.
        weights: `random`, `public` (pre-trained on generated public phantoms, never on a site's
            data), `torchvision` (ImageNet, downloaded by torchvision), `packaged` (ImageNet, of
            `tf_efficientnet_lite0`, from the extra `pretrained`; no network is needed), `hub`
            (what timm downloads), or a file's path.
        trainable: False freezes the backbone: its features are computed once and kept, and only
            the projection is trained and sent.
        width: Channels of the small CNN's first stage.
        name: The architecture's name in timm.
        input_size: Images are resized to this height and width, in pixels, before a `timm`
            backbone (bicubic, antialiased); null leaves them as they are.
        projection: A frozen backbone's features (their signed square roots) are standardised within
            each vector, and projected to so many by a fixed random orthogonal matrix; null leaves
            them as they are.
    """

    kind: EncoderKind = "cnn"
    weights: str = "random"
    trainable: bool = True
    width: int = Field(16, ge=4, le=256)
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9_.]+$")
    input_size: int | None = Field(None, ge=32, le=1024)
    projection: int | None = Field(None, ge=4, le=4096)

    @model_serializer(mode="wrap")
    def _without_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        # Private randomness depends on the configuration's text: where these are not used, it is
        # what it was before they existed.
        optional = ("name", "input_size", "projection")
        return {k: v for k, v in handler(self).items() if v is not None or k not in optional}


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
        embedding_dim: Length of each modality's embedding; null takes frozen encoders' features
            as they are, so that heads alone are trained.
        fusion: How the modalities present become one prediction. `attention`, `mean` and `concat`
            fuse embeddings, `early` stacks raw inputs, `intermediate` averages feature maps,
            `late` averages the predictions of single modalities, `hybrid` averages those with
            the prediction over attention's embedding. `product` adds up the single modalities'
            logits: a product of experts. `none` trains a single-modality model each and never
            fuses.
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

    embedding_dim: int | None = Field(64, ge=4, le=4096)
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
