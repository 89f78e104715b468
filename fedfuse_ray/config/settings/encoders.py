"""Which settings of encoders go together, and why others do not: a ValueError names the field."""

from __future__ import annotations

from collections.abc import Mapping

from fedfuse_ray.config.settings.model import NAMED_WEIGHTS, EncoderConfig, ModelConfig

_OWN_WEIGHTS = {"timm": ("packaged", "hub"), "minirocket": ()}
PACKAGED = "tf_efficientnet_lite0"
"""The architecture in timm whose weights the extra `pretrained` brings."""
_HEADS_ON_FEATURES = ("product", "late", "none")


def check_encoders(model: ModelConfig) -> None:
    """Refuse settings of an encoder that do not go together, and embeddings that nobody makes."""
    named = {"encoder": model.encoder}
    named |= {f"encoders.{name}": each for name, each in model.encoders.items()}
    named |= {f"tiers.{name}": each for name, each in model.tiers.items()}
    for name, encoder in named.items():
        _check_encoder(f"model.{name}", encoder)
    if model.embedding_dim is None:
        _check_features(model.fusion, named)


def _check_encoder(field: str, encoder: EncoderConfig) -> None:
    kind, weights = encoder.kind, encoder.weights
    if (encoder.name is not None) is not (kind == "timm"):
        remedy = "name an architecture, such as " + PACKAGED if kind == "timm" else "set it to null"
        raise ValueError(f"{field}.name: {encoder.name!r} with kind {kind!r}; {remedy}")
    if encoder.input_size is not None and kind != "timm":
        raise ValueError(
            f"{field}.input_size: '{encoder.input_size}' with kind {kind!r}, which takes images as "
            "they are; set data.image_size, or use timm"
        )
    own = _OWN_WEIGHTS.get(kind, ("public", "torchvision"))
    others = ("random", *own)
    if weights in NAMED_WEIGHTS and weights not in others:
        remedy = f"use {', '.join(others)} or a file"
        raise ValueError(f"{field}.weights: {weights!r} with kind {kind!r}; {remedy}")
    if weights == "packaged" and encoder.name != PACKAGED:
        raise ValueError(
            f"{field}.weights: 'packaged' with name {encoder.name!r}; the package has those of "
            f"{PACKAGED} only; use hub, or a file"
        )
    if kind == "minirocket" and (encoder.trainable or weights != "random"):
        raise ValueError(
            f"{field}.kind: 'minirocket' is fixed and has nothing to load or to train; set "
            "trainable to false and weights to random"
        )
    if encoder.projection is not None and encoder.trainable:
        raise ValueError(
            f"{field}.projection: '{encoder.projection}' with trainable=true; it projects features "
            "that are computed once: set trainable to false, or projection to null"
        )


def _check_features(fusion: str, named: Mapping[str, EncoderConfig]) -> None:
    """Refuse features in the place of embeddings where they are trained, or of no one length."""
    if fusion not in _HEADS_ON_FEATURES:
        raise ValueError(
            f"model.embedding_dim: 'null' with model.fusion={fusion}, which fuses embeddings; give "
            f"them a length, or use {', '.join(_HEADS_ON_FEATURES)}"
        )
    shared = named["encoder"].projection
    for name, encoder in named.items():
        if encoder.projection is None or encoder.projection != shared:
            raise ValueError(
                f"model.{name}.projection: '{encoder.projection}' with model.embedding_dim=null, "
                "under which all encoders are frozen and project to one length; set both"
            )
