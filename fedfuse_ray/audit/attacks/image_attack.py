"""Gradient inversion of an institution's images under every view, scored and kept as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from fedfuse_ray import rng
from fedfuse_ray.audit.attacks.features import DECOYS
from fedfuse_ray.audit.attacks.inversion import Known, invert_batch, invert_records
from fedfuse_ray.audit.attacks.observations import RAW, SUM, Bench
from fedfuse_ray.audit.attacks.similarity import Array, identified, matched, psnr, ssim
from fedfuse_ray.federation.institution.training import LocalTraining
from fedfuse_ray.federation.plan.plan import Plan

BATCH = 2


@dataclass(frozen=True)
class Picture:
    """An original, [C, H, W] or [C, L], and what each view gave of it."""

    modality: str
    original: Array
    reconstructions: dict[str, Array]


@dataclass(frozen=True)
class ImageLeak:
    """How close the reconstructions from one view are, in the mean over images.

    Attributes:
        view: What was observed.
        batch: Records behind one gradient.
        psnr: In dB; about 7 is what pure noise gives.
        ssim: 1 is identical.
        identified: Fraction that were told from the decoys.
        decoys: How many decoys each was hidden among.
        images: Images attacked.
    """

    view: str
    batch: int
    psnr: float
    ssim: float
    identified: float
    decoys: int
    images: int


@dataclass(frozen=True)
class ImageAttack:
    """What inversion found at an institution, single records first; pictures are of these."""

    institution: str
    leaks: tuple[ImageLeak, ...]
    pictures: tuple[Picture, ...] = field(repr=False)


@dataclass
class _Scores:
    psnr: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    identified: list[bool] = field(default_factory=list)

    def add(self, original: Array, found: Array, decoys: Array) -> None:
        self.psnr.append(psnr(original, found))
        self.ssim.append(ssim(original, found))
        self.identified.append(identified(found, original, decoys))

    def leak(self, view: str, batch: int, decoys: int) -> ImageLeak:
        return ImageLeak(
            view=view,
            batch=batch,
            psnr=float(np.mean(self.psnr)),
            ssim=float(np.mean(self.ssim)),
            identified=float(np.mean(self.identified)),
            decoys=decoys,
            images=len(self.psnr),
        )


def victim(plan: Plan) -> str:
    """Return the institution with the most kinds of images, not signals; the first of several."""
    shapes = plan.spec.shapes
    return max(plan.participants, key=lambda p: sum(len(shapes[m]) == 3 for m in p.modalities)).name


def attack_images(bench: Bench, records: int, steps: int, batch_steps: int) -> ImageAttack:
    """Attack single records under every view, then a batch with and without noise.

    The bench's plan has trainable encoders. Steps are those of the search for images.
    """
    name = victim(bench.plan)
    training = bench.training(bench.plan.by_name[name])
    # Specimens that lack no image first: they make the fullest pictures.
    order = np.argsort(-training.data.present.sum(dim=1).numpy(), kind="stable")
    rows = [int(row) for row in order[: max(records, BATCH)]]
    leaks, pictures = _single(bench, training, rows[:records], steps)
    leaks += _batched(bench, training, rows[:BATCH], batch_steps)
    return ImageAttack(name, tuple(leaks), tuple(pictures))


def _single(
    bench: Bench, training: LocalTraining, rows: Sequence[int], steps: int
) -> tuple[list[ImageLeak], list[Picture]]:
    seen = {view: [bench.observe(training, [row], view) for row in rows] for view in bench.views}
    gradients = torch.stack([g for view in bench.views for g in seen[view]])
    scores = {view: _Scores() for view in bench.views}
    pictures = []
    for slot, modality in enumerate(training.net.modalities):
        start = rng.torch_generator(bench.seed, "inversion", modality)
        found = invert_records(training.net, modality, gradients, steps, start).double().numpy()
        by_view = found.reshape(len(bench.views), len(rows), *found.shape[1:])
        for index, row in enumerate(rows):
            if not training.data.present[row, slot]:
                continue
            original, decoys = _with_decoys(training, modality, row)
            for view, images in zip(bench.views, by_view, strict=True):
                scores[view].add(original, images[index], decoys)
            parts = {v: x[index] for v, x in zip(bench.views, by_view, strict=True)}
            pictures.append(Picture(modality, original, parts))
    return [s.leak(view, 1, _decoys(training)) for view, s in scores.items()], pictures


def _batched(
    bench: Bench, training: LocalTraining, rows: Sequence[int], steps: int
) -> list[ImageLeak]:
    if len(rows) < 2:
        return []
    views = (RAW, SUM)
    chosen = torch.tensor(list(rows)).repeat(len(views), 1)
    known = Known(
        gradients=torch.stack([bench.observe(training, rows, view) for view in views]),
        present=training.data.present[chosen],
        labels=training.data.labels[chosen],
    )
    start = rng.torch_generator(bench.seed, "inversion of a batch")
    found = invert_batch(training.net, known, steps, start)
    leaks = []
    for index, view in enumerate(views):
        scores = _Scores()
        for slot, modality in enumerate(training.net.modalities):
            pairs = [_with_decoys(training, modality, row) for row in rows]
            images = list(found[modality][index].double().numpy())
            order = matched([original for original, _ in pairs], images)
            for row, (original, decoys), place in zip(rows, pairs, order, strict=True):
                if training.data.present[row, slot]:
                    scores.add(original, images[place], decoys)
        leaks.append(scores.leak(view, len(rows), _decoys(training)))
    return leaks


def _decoys(training: LocalTraining) -> int:
    return min(DECOYS, len(training.data) - 1)


def _with_decoys(training: LocalTraining, modality: str, row: int) -> tuple[Array, Array]:
    """Return a record's image, and images of other records."""
    images = training.data.inputs[modality]
    others = [i for i in range(len(images)) if i != row][: _decoys(training)]
    return images[row].double().numpy(), images[others].double().numpy()
