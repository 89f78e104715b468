"""Two ways to look at a galaxy: a broad-band image and a spectrum.

The factors are concentration (disc to bulge), star formation and redshift. The image shows the
first, the spectrum the last, and both hint at star formation: by blue knots, and by emission lines.
The exposure is chosen for each source, so that its brightness and its size tell nothing.
"""

from __future__ import annotations

import numpy as np

from fedfuse_ray.data.phantoms import Family, PhysicalModel
from fedfuse_ray.data.phantoms.fields import (
    F32,
    axis,
    blobs,
    blur,
    grid,
    level,
    log_level,
    uniform,
    veiled,
)

GALAXIES = Family(
    "astronomical",
    ("concentration", "star formation", "redshift"),
    (("disc", "bulge"), ("quiescent", "starforming"), ("near", "far")),
)
_WEAK = 0.8
_KNOTS, _STARS = 12, 3
_SKY = 0.06
_PHOTONS = 900.0
"""Photons for a pixel of brightness one."""
# Infrared, red, green, to be shown as red, green, blue: old stars are red, young ones blue.
_OLD = np.array([1.00, 0.80, 0.40], np.float32).reshape(1, 3, 1, 1)
_YOUNG = np.array([0.55, 0.75, 1.00], np.float32).reshape(1, 3, 1, 1)
_SHORT, _LONG = 3600.0, 9200.0
"""The range of the spectrograph, in angstrom."""
_EMISSION = ((3727.0, 0.8), (4861.0, 0.4), (5007.0, 0.6), (6563.0, 1.0))
"""[O II], H beta, [O III], H alpha: rest wavelength in angstrom, relative strength."""
_ABSORPTION = ((3934.0, 0.35), (3969.0, 0.35), (5175.0, 0.25), (5894.0, 0.2))
"""Ca K and H, Mg b, Na D."""


def image(factors: F32, shape: tuple[int, ...], rng: np.random.Generator) -> F32:
    """Three bands through the atmosphere: concentration, weakly star formation, not redshift.

    A Sersic profile (Sersic, 1963) exp(-b (r^(1/n) - 1)) whose index n grows with concentration,
    seen under any angle; foreground stars; a Gaussian point-spread function; sky; photon noise; and
    the arcsinh scale of Lupton et al., 2004, astro-ph/0312483.
    """
    count, size = len(factors), shape[-1]
    index = log_level(factors[:, 0], 0.6, 5.0)
    young = np.clip(level(veiled(factors[:, 1], rng, _WEAK), 0.0, 0.9), 0.0, 1.0)
    radius = _radius(count, size, rng)
    profile = np.exp(-(2.0 * index - 0.33) * (np.power(radius, 1.0 / index) - 1.0))
    profile /= profile.max(axis=(1, 2), keepdims=True)
    angle, distance = (rng.random((2, count, _KNOTS), dtype=np.float32) - 0.5) * 2.0
    knots = blobs(
        distance * np.cos(np.pi * angle) * 0.5,
        distance * np.sin(np.pi * angle) * 0.5,
        np.full((count, _KNOTS), 0.05, np.float32),
        size,
    )
    x, y, flux = rng.random((3, count, _STARS), dtype=np.float32)
    stars = blobs(x * 2 - 1, y * 2 - 1, np.full_like(x, 0.03), size, 0.5 * np.square(flux))
    bands = profile[:, None] * (_OLD + 0.7 * young[:, None] * (_YOUNG - _OLD))
    bands = bands + (0.25 * young * knots)[:, None] * _YOUNG + stars[:, None]
    seen = blur(bands.astype(np.float32), 0.035 * size) + _SKY
    # Above some tens of photons Poisson's law is a normal one, which is far quicker to draw.
    noise = rng.standard_normal(seen.shape, dtype=np.float32)
    photons = seen + np.sqrt(np.maximum(seen, 0.0) / _PHOTONS) * noise
    photons *= uniform(rng, count, 0.85, 1.15)[:, None]
    return (np.arcsinh(6.0 * np.maximum(photons - 0.5 * _SKY, 0.0)) / np.arcsinh(7.0)).astype(
        np.float32
    )


def spectrum(factors: F32, shape: tuple[int, ...], rng: np.random.Generator) -> F32:
    """Flux over wavelength: redshift, weakly star formation, not concentration.

    Lines and the break at 4000 angstrom move by 1 + z; emission grows with star formation, while
    its strength also depends on dust, which veils it.
    """
    count, length = len(factors), shape[-1]
    wave = _SHORT + (_LONG - _SHORT) * (axis(length)[None, :] + 1.0) * 0.5
    z = np.maximum(level(factors[:, 2], 0.02, 0.42)[:, :, 0], 0.0)
    young = np.clip(level(veiled(factors[:, 1], rng, _WEAK), 0.0, 1.0)[:, :, 0], 0.0, 1.2)
    rest = wave / (1.0 + z)
    old_break = 1.0 / (1.0 + np.exp(-(rest - 4000.0) / 45.0))
    signal = 0.16 + (0.28 - 0.10 * young) * old_break
    signal *= np.power(rest / 5500.0, uniform(rng, count, -0.5, 0.5)[:, :, 0])
    width = uniform(rng, count, 16.0, 26.0)[:, :, 0]
    for line, strength in _ABSORPTION:
        signal *= 1.0 - strength * np.exp(-0.5 * np.square((rest - line) / width))
    for line, strength in _EMISSION:
        scatter = np.exp(0.15 * rng.standard_normal((count, 1), dtype=np.float32))
        peak = 0.55 * young * strength * scatter
        signal += peak * np.exp(-0.5 * np.square((rest - line) / width))
    signal *= uniform(rng, count, 0.9, 1.3)[:, :, 0]
    sky = 1.0 + np.exp(-0.5 * np.square((wave - 5577.0) / 40.0)) * 3.0  # the night sky's own line
    noise = rng.standard_normal(signal.shape, dtype=np.float32)
    signal += 0.03 * np.sqrt(np.maximum(signal, 0.02) * sky) * noise
    return signal[:, None].astype(np.float32)


def _radius(count: int, size: int, rng: np.random.Generator) -> F32:
    """Return the distance from an inclined galaxy's centre in effective radii, [N, H, W]."""
    x, y = grid(size)
    x = x - uniform(rng, count, -0.12, 0.12)
    y = y - uniform(rng, count, -0.12, 0.12)
    angle = uniform(rng, count, 0.0, np.pi)
    flat = uniform(rng, count, 0.45, 1.0)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = (y * np.cos(angle) - x * np.sin(angle)) / flat
    scale = uniform(rng, count, 0.30, 0.42)
    return (np.sqrt(np.square(along) + np.square(across)) / scale + 0.02).astype(np.float32)


FORWARD_MODELS = (
    PhysicalModel("galaxy_image", GALAXIES, strong=0, weak=1, physics=image, channels=3),
    PhysicalModel("galaxy_spectrum", GALAXIES, strong=2, weak=1, physics=spectrum, signal=True),
)
