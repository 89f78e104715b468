"""Heads trained on chosen specimens: LiRA's shadows, and the target that nothing protects.

What the attack retrains is the part of the network above the backbones, one model a domain, on the
pooled specimens of its institutions. Where backbones are trained too, those of the audited model
are taken as they are: shadows then know a little about every specimen, and LiRA is weaker than with
shadows trained from scratch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from fedfuse_ray import rng
from fedfuse_ray.audit.attacks.features import encoder_of
from fedfuse_ray.blocks import Blocks
from fedfuse_ray.config.settings.model import EncoderConfig
from fedfuse_ray.data.dataset import Dataset
from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.institution.optimizer import FlatOptimizer
from fedfuse_ray.federation.institution.tensors import BackboneCache, TensorData, to_tensors
from fedfuse_ray.federation.institution.training import LocalTraining
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.models.initial import initial_blocks
from fedfuse_ray.models.net import CrossModalNet
from fedfuse_ray.models.spec import ENCODER, ModelSpec

_BATCH = 64
_LEARNING_RATE = 5e-3


@dataclass(frozen=True)
class Pool:
    """A domain's specimens, and the network of heads over frozen backbones.

    The first `members` specimens were trained on; `target` are the audited model's blocks.
    """

    plan: Plan
    spec: ModelSpec
    domain: str
    modalities: tuple[str, ...]
    data: TensorData
    members: int
    target: Blocks

    def net(self, blocks: Blocks) -> CrossModalNet:
        """Return the heads with weights."""
        net = CrossModalNet(self.spec, self.domain, self.modalities)
        net.set_blocks(blocks)
        return net

    def train(self, chosen: npt.NDArray[np.bool_], epochs: int, seed: int) -> CrossModalNet:
        """Train heads from scratch on the chosen specimens, without protection."""
        rows = torch.from_numpy(np.flatnonzero(chosen))
        inputs = {m: x[rows] for m, x in self.data.inputs.items()}
        data = replace(
            self.data, inputs=inputs, present=self.data.present[rows], labels=self.data.labels[rows]
        )
        config = self.plan.experiment.training.model_copy(
            update={"optimizer": "adam", "learning_rate": _LEARNING_RATE, "weight_decay": 0.0}
        )
        net = self.net(initial_blocks(replace(self.spec, seed=seed)))
        model = self.plan.experiment.model
        training = LocalTraining(net, data, config, model, _BATCH, seed, self.domain)
        optimizer = FlatOptimizer(config, net.flat, net.gradient)
        for epoch in range(epochs):
            training.run_epoch(epoch, optimizer)
        return net


def pools(plan: Plan, dataset: Dataset, weights: Blocks) -> Iterator[Pool]:
    """Yield each domain's pool; validation specimens are those not trained on.

    Raises:
        InputError: The model fuses before its encoders end.
    """
    if not (config := plan.spec.config).single_encoders:
        remedy = "has no heads above backbones; skip membership"
        raise InputError("model.fusion", config.fusion, remedy)
    backbones = BackboneCache(plan.spec)
    for domain in plan.spec.domains:
        here = [p for p in plan.participants if p.domain == domain]
        if not here:
            continue
        names = [member for p in here for member in p.members]
        parts = [
            to_tensors(dataset.split(split, names), plan.spec, backbones, torch.device("cpu"))
            for split in ("train", "validation")
        ]
        joined = _joined(parts)
        net = CrossModalNet(plan.spec, domain, joined.modalities)
        net.set_blocks(weights)
        yield Pool(
            plan=plan,
            spec=_frozen(plan.spec),
            domain=domain,
            modalities=joined.modalities,
            data=replace(joined, inputs=_features(net, joined)),
            members=len(parts[0]),
            target=_heads(net, weights),
        )


def confidences(net: CrossModalNet, data: TensorData) -> npt.NDArray[np.float64]:
    """Return log(p / (1 - p)) of each specimen's true class, [N]."""
    with torch.inference_mode():
        logits, _ = net.classify(net.embed(data.batch(slice(None))), data.present)
        logs = torch.log_softmax(logits.double(), dim=1)
        true = logs.gather(1, data.labels[:, None])[:, 0]
        others = logs.scatter(1, data.labels[:, None], -torch.inf).logsumexp(dim=1)
    values: npt.NDArray[np.float64] = (true - others).numpy()
    return values


def halves(pool: Pool, count: int, seed: int) -> npt.NDArray[np.bool_]:
    """Return which specimens each shadow is trained on: half of all, at random; bool [S, N]."""
    generator = rng.generator(seed, "shadows", pool.domain)
    size = len(pool.data)
    chosen = np.zeros((count, size), bool)
    for row in chosen:
        row[generator.permutation(size)[: size // 2]] = True
    return chosen


def _frozen(spec: ModelSpec) -> ModelSpec:
    """Return the spec of the heads alone; what is frozen already stays as it is."""

    def freeze(config: EncoderConfig) -> EncoderConfig:
        if not config.trainable:
            return config
        return config.model_copy(update={"trainable": False, "weights": "random"})

    config = spec.config
    encoders = {name: freeze(encoder) for name, encoder in config.encoders.items()}
    frozen = config.model_copy(update={"encoder": freeze(config.encoder), "encoders": encoders})
    return replace(spec, config=frozen)


def _features(net: CrossModalNet, data: TensorData) -> dict[str, torch.Tensor]:
    features = {}
    with torch.inference_mode():
        for modality in net.modalities:
            encoder = encoder_of(net, modality)
            images = data.inputs[modality]
            if encoder is None:  # frozen features are the embeddings
                features[modality] = images
                continue
            chunks = [encoder.backbone(part.float()) for part in images.split(256)]
            features[modality] = torch.cat(chunks)
    # Inference tensors can't be trained on; copies can.
    return {modality: values.clone() for modality, values in features.items()}


def _heads(net: CrossModalNet, weights: Blocks) -> Blocks:
    """Return the blocks of the heads: of an encoder, its projection only."""
    blocks: Blocks = {}
    for name in net.names:
        encoder = encoder_of(net, name.removeprefix(ENCODER)) if ENCODER in name else None
        size = sum(p.numel() for p in encoder.projection.parameters()) if encoder else 0
        blocks[name] = weights[name][-size:] if size else weights[name]
    return blocks


def _joined(parts: list[TensorData]) -> TensorData:
    first = parts[0]
    return replace(
        first,
        inputs={m: torch.cat([p.inputs[m] for p in parts]) for m in first.modalities},
        present=torch.cat([p.present for p in parts]),
        labels=torch.cat([p.labels for p in parts]),
    )
