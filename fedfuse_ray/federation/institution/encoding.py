"""Features of frozen backbones made before a federation starts, on all of this machine's cores.

Institutions then find them on disk. On a cluster whose nodes share no cache, each makes its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from fedfuse_ray.data.dataset import Dataset
from fedfuse_ray.data.specimens import Specimens
from fedfuse_ray.federation.institution.blame import blamed
from fedfuse_ray.federation.institution.tensors import BackboneCache
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.models.features import FrozenFeatures

_TOLD_EVERY_SECONDS = 10.0


@dataclass(frozen=True)
class _Work:
    """Images of one table and modality whose features nobody has, by their keys."""

    kept: FrozenFeatures
    images: npt.NDArray[np.float16]
    missing: dict[bytes, int]


def encode_ahead(
    plan: Plan, dataset: Dataset, tell: Callable[[str], None] = lambda text: None
) -> int:
    """Compute and store the frozen features that a federation will ask for and nobody has.

    Args:
        plan: The federation's plan.
        dataset: Its specimens.
        tell: Told how far it is, and how long it will take.

    Returns:
        How many images were encoded.
    """
    backbones = BackboneCache(plan.spec)
    if any(p.num_gpus > 0 for p in plan.participants):
        return 0  # institutions do it, on their GPUs
    seen: set[tuple[int, bytes]] = set()
    work = []
    for modality, images in _tables(plan, dataset, backbones):
        kept = backbones.kept(modality, torch.device("cpu"))
        found = kept.missing(images).items()
        missing = {key: row for key, row in found if (id(kept), key) not in seen}
        seen |= {(id(kept), key) for key in missing}
        if missing:
            work.append(_Work(kept, images, missing))
    total, workers = sum(len(each.missing) for each in work), len(os.sched_getaffinity(0))
    if not total:
        return 0
    tell(f"Encoding {total:,} images, once for all runs")
    done, began, told = 0, time.monotonic(), time.monotonic()
    for each in work:
        for count in each.kept.compute_ahead(each.images, each.missing, workers):
            done, now = done + count, time.monotonic()
            if now - told >= _TOLD_EVERY_SECONDS:
                told, left = now, (now - began) / done * (total - done)
                tell(f"Encoding images: {done:,} of {total:,}, about {left:.0f} s left")
    return total


def _tables(
    plan: Plan, dataset: Dataset, backbones: BackboneCache
) -> Iterator[tuple[str, npt.NDArray[np.float16]]]:
    """Yield modality and present images of every table that the default encoders will see."""
    for p in plan.participants:
        if not p.tier and any(map(backbones.costly, p.modalities)):
            for name in p.members:
                with blamed(name):
                    own = [dataset.split(split, [name]) for split in ("train", "validation")]
                for specimens in own:
                    yield from _costly(specimens, backbones)
    for domain, modalities in plan.spec.domains.items():
        if any(map(backbones.costly, modalities)):
            yield from _costly(dataset.test(domain), backbones)


def _costly(
    specimens: Specimens, backbones: BackboneCache
) -> Iterator[tuple[str, npt.NDArray[np.float16]]]:
    for column, modality in enumerate(specimens.modalities):
        if backbones.costly(modality):
            yield modality, specimens.images[modality][specimens.present[:, column]]
