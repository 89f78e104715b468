"""Imaging a set of specimens with a set of instruments, and public phantoms for pre-training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedfuse_ray.data.phantoms.factors import FACTORS, UNIFORM_LIMIT
from fedfuse_ray.data.phantoms.fields import F32
from fedfuse_ray.data.phantoms.forward import FORWARD_MODELS, ForwardModel, forward_model
from fedfuse_ray.data.phantoms.scanner import Scanner, at_times, draw_settings
from fedfuse_ray.data.specimens import Image, Shape
from fedfuse_ray.rng import generator

# A working set that stays in a core's cache is several times faster than all at once.
_BATCH_VALUES = 1 << 17
_PUBLIC_SCANNERS = 32


def acquire(
    model: ForwardModel, shape: Shape, factors: F32, scanner: Scanner, rng: np.random.Generator
) -> Image:
    """Image factors [N, 3], a cache's worth at a time: float16 [N, *shape] in [0, 1]."""
    images = np.empty((len(factors), *shape), np.float16)
    step = max(1, _BATCH_VALUES // int(np.prod(shape[1:])))
    for start in range(0, len(factors), step):
        rows = slice(start, start + step)
        images[rows] = model.render(factors[rows], shape, scanner.rows(rows), rng)
    return images


@dataclass(frozen=True)
class Resolution:
    """How finely public phantoms are imaged: height and width of images, bins of signals."""

    image_size: int = 32
    signal_length: int = 256


def public(
    modality: str,
    count: int,
    *,
    seed: int,
    resolution: Resolution = Resolution(),
    feature: float = 1.0,
    models: Mapping[str, ForwardModel] = FORWARD_MODELS,
) -> tuple[Image, F32]:
    """Generate public phantoms of one modality, for pre-training without anyone's data.

    Factors are uniform over the space, so nothing of a federation's classes is in them, and the
    instruments belong to no institution; `feature`, 0 to 1, is the strength of their differences.

    Returns:
        Images float16 [count, *shape] in [0, 1], and their factors float32 [count, 3].

    Raises:
        InputError: No forward model of that name.
    """
    model = forward_model(modality, models)
    shape = model.shape(resolution.image_size, resolution.signal_length)
    rng = generator(seed, "phantoms/public", modality)
    factors = rng.uniform(-UNIFORM_LIMIT, UNIFORM_LIMIT, (count, FACTORS)).astype(np.float32)
    sites = [str(site) for site in range(_PUBLIC_SCANNERS)]
    settings = draw_settings(seed, "phantoms/public-scanner", sites, modality, count, rng)
    scanner = at_times(settings, np.zeros(count, np.float32), feature, 0.0)
    return acquire(model, shape, factors, scanner, rng), factors
