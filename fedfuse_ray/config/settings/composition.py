"""Which settings go together, and why others do not: a ValueError names field and reason."""

from __future__ import annotations

import importlib.util

from fedfuse_ray.config.settings.compression import LINEAR_CODECS, CompressionConfig
from fedfuse_ray.config.settings.model import CNN_STAGES, ModelConfig
from fedfuse_ray.config.settings.network import NetworkConfig
from fedfuse_ray.config.settings.privacy import PrivacyConfig
from fedfuse_ray.config.settings.training import StrategyConfig, TrainingConfig


def check_compression(compression: CompressionConfig, privacy: PrivacyConfig) -> None:
    """Refuse a composition that breaks the guarantee, or the sum under masks."""
    codec, mode = compression.codec, privacy.mode
    down, default = compression.downlink, 0.1
    if down.codec == "subspace" and (codec, compression.fraction or default) != (
        "subspace",
        down.fraction,
    ):
        raise ValueError(
            "compression.downlink.codec: 'subspace' can't follow a model that leaves its subspace; "
            "set compression.codec to subspace and both fractions alike, or use modint"
        )
    if compression.feedback in ("ef14", "ef21") and privacy.enabled:
        raise ValueError(
            f"compression.feedback: {compression.feedback!r} under privacy mode {mode!r}: what it "
            "keeps back of one release goes into the next without noise; set it to none"
        )
    if mode == "record-distributed":
        if codec not in LINEAR_CODECS:
            raise ValueError(
                f"compression.codec: {codec!r} is not linear, so its sum can't be taken under "
                f"masks; use {', '.join(sorted(LINEAR_CODECS))}, or privacy.mode record-local"
            )
        if codec == "fp32" and compression.bits is not None:
            raise ValueError(
                f"compression.bits: '{compression.bits}' with codec 'fp32', which always sends 32 "
                "bits; use modint to choose"
            )
        if privacy.adaptive_clipping.enabled and codec in ("subspace", "countsketch"):
            raise ValueError(
                f"compression.codec: {codec!r} changes a record's norm before it is clipped, which "
                "adaptive_clipping tracks; use modint, or a fixed clip_norm"
            )
    elif compression.policy.asked and privacy.enabled:
        raise ValueError(
            f"compression.policy.kind: 'adaptive' looks at released sums; privacy mode {mode!r} "
            "has no securely summed release; set it to fixed"
        )
    elif compression.policy.asked and codec == "countsketch":
        raise ValueError(
            "compression.policy.kind: 'adaptive' can't tell a countsketch's error from the mean "
            "update; use subspace or topk, or set it to fixed"
        )


def check_exposures(privacy: PrivacyConfig, compression: CompressionConfig, rounds: int) -> None:
    """Refuse more seen uploads than there are, and codecs under which noise does not add up."""
    seen = privacy.uplink_exposures
    if seen is None:
        return
    if seen > rounds:
        raise ValueError(
            f"privacy.uplink_exposures: '{seen}' of {rounds} uploads; use {rounds} or less, or null"
        )
    if compression.codec != "fp32":
        raise ValueError(
            f"compression.codec: {compression.codec!r} loses part of each upload, so that their "
            "noise no longer adds up in what is broadcast; with privacy.uplink_exposures use fp32"
        )


_NEEDS_MORE_THAN_SUMS = {
    "record-distributed": "already hides updates under masks",
    "client": "has the server clip what it decodes",
}


def check_encryption(
    compression: CompressionConfig,
    privacy: PrivacyConfig,
    network: NetworkConfig,
    strategy: StrategyConfig,
    selection: str,
) -> None:
    """Refuse what sums on ciphertexts can't follow."""
    if compression.encryption == "none":
        return
    reason = None
    if importlib.util.find_spec("tenseal") is None:
        # Said before anything is prepared, where the rest of a comparison can still go on.
        reason = "needs TenSEAL: pip install 'fedfuse-ray[he]'"
    elif compression.codec != "fp32":
        reason = f"adds fixed-point numbers, not what {compression.codec} sends; use codec fp32"
    elif privacy.mode in _NEEDS_MORE_THAN_SUMS:
        reason = f"under privacy mode {privacy.mode}, which {_NEEDS_MORE_THAN_SUMS[privacy.mode]}"
    elif strategy.kind == "scaffold":
        reason = "does not cover the control variates of scaffold; use another strategy"
    elif strategy.weighting == "loss":
        reason = "hides the updates that strategy.weighting=loss would weigh; use specimens"
    elif selection != "all":
        reason = "needs the key's holder in every round; set selection.kind to all"
    elif network.aggregation.kind == "buffered-async":
        reason = "has a key for each round, and buffered-async mixes rounds; use sync or deadline"
    if reason:
        raise ValueError(f"compression.encryption: {compression.encryption!r} {reason}")


def check_aggregation(
    network: NetworkConfig, privacy: PrivacyConfig, compression: CompressionConfig, strategy: str
) -> None:
    """Refuse an aggregation that the privacy mode or the strategy can't follow."""
    if network.aggregation.kind != "buffered-async":
        return
    if privacy.enabled:
        raise ValueError(
            "network.aggregation.kind: 'buffered-async' lets institutions release at their own "
            f"pace, and privacy mode {privacy.mode!r} charges each one every round; use sync or "
            "deadline"
        )
    if strategy == "scaffold":
        raise ValueError(
            "network.aggregation.kind: 'buffered-async' mixes updates of different rounds, for "
            "which SCAFFOLD's control variates are not defined; use fedavg or fednova"
        )
    if compression.feedback == "ef21" or compression.policy.asked:
        raise ValueError(
            "network.aggregation.kind: 'buffered-async' weighs updates by their age, under which "
            "ef21's differences and the adaptive policy's choices of one round do not add up; use "
            "compression.feedback=ef14 and compression.policy.kind=fixed"
        )
    if compression.downlink.codec != "fp32":
        raise ValueError(
            "network.aggregation.kind: 'buffered-async' sends institutions models of different "
            "ages, so a broadcast can't be a change; set compression.downlink.codec to fp32"
        )


def check_selection(kind: str, network: NetworkConfig, privacy: PrivacyConfig) -> None:
    """Refuse to choose who takes part where the accounting or the schedule has fixed it."""
    if kind == "all":
        return
    if privacy.enabled:
        instead = " (client samples institutions by privacy.sampling_rate)"
        raise ValueError(
            f"selection.kind: {kind!r} under privacy mode {privacy.mode!r}, which charges every "
            f"institution in every round; set it to all{instead * (privacy.mode == 'client')}"
        )
    if network.aggregation.kind == "buffered-async":
        raise ValueError(
            f"selection.kind: {kind!r} under network.aggregation.kind=buffered-async, where "
            "institutions train at their own pace and no round could choose them; set it to all"
        )


def check_weighting(
    weighting: str, network: NetworkConfig, privacy: PrivacyConfig, compression: CompressionConfig
) -> None:
    """Refuse weights by loss where losses can't be shown, or don't compare."""
    if weighting != "loss":
        return
    if privacy.enabled:
        raise ValueError(
            "strategy.weighting: 'loss' shows the server each institution's training loss, which "
            f"privacy mode {privacy.mode!r} does not cover; use specimens, uniform or domain"
        )
    if network.aggregation.kind == "buffered-async":
        raise ValueError(
            "strategy.weighting: 'loss' compares losses of one model, and "
            "network.aggregation.kind=buffered-async mixes models of different ages; use specimens"
        )
    if compression.feedback == "ef21":
        raise ValueError(
            "strategy.weighting: 'loss' weighs each round anew, under which ef21's differences do "
            "not add up; use compression.feedback=ef14"
        )


def check_fusion_depth(model: ModelConfig) -> None:
    """Refuse a depth that nothing uses, and encoders whose feature maps can't be averaged."""
    depth = model.fusion_depth
    if model.fusion != "intermediate":
        if depth is not None:
            raise ValueError(
                f"model.fusion_depth: '{depth}' with model.fusion={model.fusion}, which fuses at "
                "one place only; set the fusion to intermediate, or the depth to null"
            )
        return
    if depth is None:
        raise ValueError(
            "model.fusion_depth: 'null' with model.fusion=intermediate; choose how many of the "
            f"CNN's stages each modality has for itself, 0 to {CNN_STAGES}"
        )
    shared = model.encoder
    for name, encoder in {"encoder": shared, **model.encoders}.items():
        field = f"model.{name}" if encoder is shared else f"model.encoders.{name}"
        if encoder.kind != "cnn":
            raise ValueError(
                f"{field}.kind: {encoder.kind!r} can't be cut in two for "
                "model.fusion=intermediate; use cnn, or another fusion"
            )
        if not encoder.trainable:
            raise ValueError(
                f"{field}.trainable: 'false' with model.fusion=intermediate, whose shared stages "
                "come after each modality's own; set it to true, or fuse embeddings by attention"
            )
        if encoder.width != shared.width:
            raise ValueError(
                f"{field}.width: '{encoder.width}' beside model.encoder.width={shared.width}; "
                "intermediate fusion averages feature maps, which need one width"
            )


def check_contrastive(
    training: TrainingConfig, model: ModelConfig, privacy: PrivacyConfig, strategy: str
) -> None:
    """Refuse contrastive rounds that leave no others, or that break what their run rests on."""
    if training.contrastive is None:
        return
    field, rounds = "training.contrastive", training.contrastive.rounds
    if rounds >= training.rounds:
        raise ValueError(
            f"{field}.rounds: '{rounds}' of training.rounds={training.rounds} leaves no supervised "
            "round; have fewer of them, or more rounds"
        )
    if not model.single_encoders:
        raise ValueError(
            f"{field}: 'rounds={rounds}' with model.fusion={model.fusion}, which has no embedding "
            "of a single modality to pair; choose another fusion, or set it to null"
        )
    if model.embedding_dim is None:
        raise ValueError(
            f"{field}: 'rounds={rounds}' with model.embedding_dim=null, which leaves no encoder to "
            "train; give the embeddings a length, or set it to null"
        )
    if privacy.enabled and privacy.protected_unit != "institution":
        raise ValueError(
            f"{field}: 'rounds={rounds}' under privacy.mode={privacy.mode}: the loss compares each "
            "record with its whole batch, so one record moves the gradients of all, and clipping "
            "them one by one bounds nothing; set it to null, or protect institutions: mode client"
        )
    if strategy == "scaffold":
        raise ValueError(
            f"{field}: 'rounds={rounds}' with strategy.kind=scaffold, whose control variates would "
            "carry one loss's gradient into the other's rounds; use another strategy"
        )
