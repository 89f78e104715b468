"""Two ways to look at a tumour's genome: fluorescence in situ hybridisation, and sequencing depth.

The factors are ploidy, amplification of one gene, and rearrangement. The microscope counts whole
chromosomes; sequencing sees where the number of copies changes along the genome, and nothing of
ploidy, since depth is known up to a factor only. Both hint at the gene's copies.
"""

from __future__ import annotations

import numpy as np

from fedfuse_ray.data.phantoms import Family, PhysicalModel
from fedfuse_ray.data.phantoms.fields import (
    F32,
    Ellipse,
    axis,
    blobs,
    level,
    log_level,
    pixel_noise,
    smooth_field,
    uniform,
    veiled,
)

TUMOURS = Family(
    "genomic",
    ("ploidy", "amplification", "rearrangement"),
    (("diploid", "polyploid"), ("single", "amplified"), ("stable", "rearranged")),
)
_WEAK = 0.8
_PROBES = 24
_BREAKS = 28
_GENE = 0.62
"""Where the gene lies, as a fraction of the genome."""


def fish(factors: F32, shape: tuple[int, ...], rng: np.random.Generator) -> F32:
    """A nucleus with probes: ploidy (green), weakly the gene's copies (red), not rearrangement.

    Red, green, blue: the gene's probe, the centromere's probe, DNA stain. A polyploid nucleus is
    larger and has more green spots; amplified copies lie in clusters that can't be counted well.
    """
    count, size = len(factors), shape[-1]
    across = log_level(factors[:, 0], 0.38, 0.72)
    centre = [uniform(rng, count, -0.12, 0.12) for _ in range(2)]
    round_ = uniform(rng, count, 0.85, 1.15)
    angle = uniform(rng, count, 0.0, np.pi)
    nucleus = Ellipse(*centre, across * round_, across / round_, angle)
    stain = nucleus.mask(size) * (0.45 + 0.07 * smooth_field(rng, count, size, 6))
    copies = log_level(factors[:, 0], 2.0, 12.0)[:, :, 0]
    green = _spots(nucleus, copies, 0.75, size, rng)
    gene = log_level(veiled(factors[:, 1], rng, _WEAK), 1.5, 12.0)[:, :, 0]
    red = _spots(nucleus, gene, 0.35, size, rng)
    picture = np.stack([0.6 * red, 0.6 * green, stain], axis=1)
    picture *= uniform(rng, count, 0.85, 1.15)[:, None]
    picture += 0.05
    shot = np.sqrt(np.maximum(picture, 0.01))
    picture += shot * pixel_noise(rng, picture.shape, 0.05)
    return picture.astype(np.float32)


def depth(factors: F32, shape: tuple[int, ...], rng: np.random.Generator) -> F32:
    """Reads along the genome: breaks (rearrangement), weakly the gene's peak, not ploidy.

    Between breaks the number of copies is constant. Depth is normalised to its mean, follows the
    content of G and C in slow waves, and scatters more than Poisson's law.
    """
    count, length = len(factors), shape[-1]
    place = (axis(length)[None, :] + 1.0) * 0.5
    breaks = log_level(factors[:, 2], 1.0, 24.0)[:, :, 0]
    signal = np.full((count, length), 1.0, np.float32)
    for number in range(_BREAKS):
        at, step = rng.random((2, count, 1), dtype=np.float32)
        on = np.clip(breaks - number, 0.0, 1.0)
        # Each piece gains or loses about one copy in two, over its own stretch.
        stretch = 0.5 / np.maximum(breaks, 3.0)
        change = np.where(step < 0.5, -0.28, 0.28)
        signal += on * change * (np.abs(place - at) < stretch)
    gain = level(veiled(factors[:, 1], rng, _WEAK), -0.1, 1.0)[:, :, 0]
    signal += np.maximum(gain, 0.0) * (np.abs(place - _GENE) < 0.02)
    waves = uniform(rng, count, 4.0, 9.0)[:, :, 0] * place + uniform(rng, count, 0.0, 6.28)[:, :, 0]
    signal *= 1.0 + 0.06 * np.sin(waves)
    signal = np.maximum(signal, 0.1)
    signal /= signal.mean(axis=1, keepdims=True)
    signal += 0.09 * np.sqrt(signal) * rng.standard_normal(signal.shape, dtype=np.float32)
    return (0.4 * signal[:, None]).astype(np.float32)


def _spots(
    nucleus: Ellipse, number: F32, spread: float, size: int, rng: np.random.Generator
) -> F32:
    """Return spots of a probe within a nucleus, [N, H, W]; `number` [N, 1] need not be whole."""
    count = len(number)
    where = np.sqrt(rng.random((count, _PROBES), dtype=np.float32)) * spread
    turn = rng.random((count, _PROBES), dtype=np.float32) * np.float32(2.0 * np.pi)
    u, v = where * np.cos(turn), where * np.sin(turn)
    x, y = nucleus.at(u[:, None], v[:, None])
    bright = np.clip(number - np.arange(_PROBES, dtype=np.float32), 0.0, 1.0)
    radius = np.full((count, _PROBES), 0.045, np.float32)
    return np.minimum(blobs(x[:, 0], y[:, 0], radius, size, bright), 1.5)


FORWARD_MODELS = (
    PhysicalModel("fish", TUMOURS, strong=0, weak=1, physics=fish, channels=3),
    PhysicalModel("sequencing_depth", TUMOURS, strong=2, weak=1, physics=depth, signal=True),
)
