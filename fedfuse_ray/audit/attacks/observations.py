"""What an attacker may get hold of: gradients, from the bare one to the noisy secure sum.

| view          | adversary                                                     |
|---------------|---------------------------------------------------------------|
| `raw`         | sees one record's (or batch's) gradient as it is              |
| `clipped`     | sees it scaled to the clipping norm                           |
| `noise share` | has broken secure aggregation: sees one institution's message |
| `secure sum`  | the honest-but-curious server of the threat model             |

Clipping, noise and sums are those of training (`clipped_gradient_sum`, `noisy_words`). Worst case
for the record: no modality is dropped, its label is known, and in the secure sum every institution
adds a few records only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from fedfuse_ray import rng
from fedfuse_ray.audit.attacks.releases import noisy_sums, reseeded, secure_sum
from fedfuse_ray.blocks import Blocks
from fedfuse_ray.compression.projection import SparseProjection
from fedfuse_ray.config.settings.model import EncoderConfig
from fedfuse_ray.data.dataset import Dataset
from fedfuse_ray.federation.institution.private_gradients import clipped_gradient_sum
from fedfuse_ray.federation.institution.tensors import BackboneCache, to_tensors
from fedfuse_ray.federation.institution.training import LocalTraining
from fedfuse_ray.federation.plan.participants import Participant
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.models.initial import block_sizes
from fedfuse_ray.models.net import CrossModalNet
from fedfuse_ray.privacy.mechanisms.clipping import JOINT
from fedfuse_ray.privacy.randomness import derived

RAW, CLIPPED, SHARE, SUM = "raw", "clipped", "noise share", "secure sum"
_UNCLIPPED = 1e6
_WIDTH = 16
_EMBEDDING = 64


@dataclass(frozen=True)
class Bench:
    """A plan with specimens, and the weights at which gradients are observed.

    Each institution adds `company` records to the secure sum.
    """

    plan: Plan
    dataset: Dataset
    weights: Blocks
    seed: int
    company: int

    @cached_property
    def backbones(self) -> BackboneCache:
        """The frozen encoders."""
        return BackboneCache(self.plan.spec)

    @property
    def views(self) -> tuple[str, ...]:
        """The views that exist: clipping and noise only where they are part of training."""
        private = self.plan.privacy is not None
        return (RAW, CLIPPED, SHARE, SUM) if private else (RAW, SUM)

    def training(self, participant: Participant) -> LocalTraining:
        """Return an institution's training, as it stands in a round, without modality dropout."""
        model = self.plan.experiment.model.model_copy(update={"modality_dropout": 0.0})
        p = participant
        net = CrossModalNet(self.plan.spec, p.domain, p.modalities, p.tier)
        net.set_blocks(self.weights)
        specimens = self.dataset.split("train", participant.members)
        return LocalTraining(
            net=net,
            data=to_tensors(specimens, self.plan.spec, self.backbones, torch.device("cpu"), p.tier),
            training=self.plan.experiment.training,
            model=model,
            batch_size=participant.batch_size,
            seed=self.seed,
            name=participant.name,
        )

    @cached_property
    def others(self) -> Mapping[str, Blocks]:
        """What each institution adds to the secure sum beside the target."""
        sums = {}
        for participant in self.plan.participants:
            training = self.training(participant)
            generator = rng.generator(self.seed, "company", participant.name)
            count = min(self.company, len(training.data))
            rows = torch.from_numpy(generator.permutation(len(training.data))[:count])
            sums[participant.name] = self._sum(training, rows, clip=True)
        return sums

    def observe(self, target: LocalTraining, rows: Sequence[int], view: str) -> torch.Tensor:
        """Return what a view shows of some records' gradient, [P] of the target's network."""
        chosen = torch.tensor(list(rows))
        if view == RAW:
            return target.net.join(self._sum(target, chosen, clip=False))
        own = self._sum(target, chosen, clip=True)
        if view == SUM:
            before = self.others[target.name]
            parts = {**self.others, target.name: {b: before[b] + v for b, v in own.items()}}
            own = self._noisy(parts, self.plan.owners, rows)
        elif view == SHARE:
            alone = dict.fromkeys(self.plan.owners, (target.name,))
            own = self._noisy({target.name: own}, alone, rows)
        return target.net.join(self._lifted({name: own[name] for name in target.net.names}))

    def _sum(self, training: LocalTraining, rows: torch.Tensor, *, clip: bool) -> Blocks:
        norms, groups = {JOINT: _UNCLIPPED}, None
        terms = self.plan.privacy
        if clip and terms is not None:
            norms, groups = terms.clip_norms, terms.groups(training.net.names)
        generator = rng.generator(self.seed, "no dropout")
        sketches = self._sketches(training.net) if clip else {}
        clipped, _ = clipped_gradient_sum(training, rows, generator, norms, groups, sketches)
        return clipped.sums

    def _sketches(self, net: CrossModalNet) -> dict[str, SparseProjection]:
        """Return the linear maps that a private gradient goes through before its clip."""
        coding = self.plan.coding
        if not (coding.secure and coding.sketches):
            return {}
        sizes = {name: stop - start for name, (start, stop) in net.offsets.items()}
        known = {name: coding.projection(name, size, 1) for name, size in sizes.items()}
        return {name: sketch for name, sketch in known.items() if sketch is not None}

    def _lifted(self, blocks: Blocks) -> Blocks:
        """Return what the sketches stand for: all that the server can make of them."""
        coding = self.plan.coding
        if not (coding.secure and coding.sketches):
            return blocks
        return {n: coding.lift(v, n, self.weights[n].size, 1) for n, v in blocks.items()}

    def _noisy(
        self, parts: Mapping[str, Blocks], among: Mapping[str, Sequence[str]], rows: Sequence[int]
    ) -> Blocks:
        if self.plan.privacy is None:
            totals: Blocks = {}
            for part in parts.values():
                for block, vector in part.items():
                    totals[block] = totals.get(block, np.zeros_like(vector)) + vector
            return totals
        seed = rng.derive(self.seed, "attacked noise", *rows) >> 1
        if self.plan.privacy.distributed:
            return secure_sum(parts, reseeded(self.plan, seed), 1, among)
        return noisy_sums(parts, self.plan.privacy, derived(seed))


def trainable(plan: Plan) -> Plan:
    """Return the plan with every encoder a small CNN trained from scratch, for attacks on images.

    Frozen encoders keep images out of the gradient; what it would show without them is the
    baseline that they are measured against.
    """
    config = plan.spec.config
    encoder = EncoderConfig(kind="cnn", weights="random", trainable=True, width=_WIDTH)
    fusion = config.fusion if config.single_encoders else "attention"
    tiers = dict.fromkeys(config.tiers, encoder)
    model = config.model_copy(
        update={"encoder": encoder, "encoders": {}, "tiers": tiers}
        | {"fusion": fusion, "fusion_depth": None}
        | {"embedding_dim": config.embedding_dim or _EMBEDDING}
    )
    spec = replace(plan.spec, config=model)
    experiment = plan.experiment.model_copy(update={"model": model})
    variant = replace(plan, spec=spec, experiment=experiment, privacy=None)
    if plan.privacy is None:
        return variant
    sizes = block_sizes(spec)
    own = {p.name: {b: sizes[b] for b in variant.blocks_of(p)} for p in variant.participants}
    terms = replace(plan.privacy, coordinates=own, owners=variant.owners)
    return replace(variant, privacy=terms)
