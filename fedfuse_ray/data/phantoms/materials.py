"""Forward models of the materials family: factors are grain size, composition and lattice."""

from __future__ import annotations

import numpy as np

from fedfuse_ray.data.phantoms.fields import (
    F32,
    axis,
    blobs,
    grid,
    level,
    log_level,
    outer_sum,
    pixel_noise,
    smooth_field,
    uniform,
    veiled,
)

_WEAK = 0.8
_SEEDS = 12
"""Grain seeds along an axis."""
_WAVELENGTH = 1.54
"""Copper K-alpha, in angstrom."""
_REFLECTIONS = ((3, 1.0), (4, 0.55), (8, 0.45), (11, 0.5), (12, 0.2), (16, 0.15))
"""h^2 + k^2 + l^2 of a face-centred cubic lattice, with relative intensities."""
_LINES = (
    # Position over the recorded range, strength in the pure first phase, in the pure second.
    (0.14, 0.55, 0.00),
    (0.26, 0.00, 0.75),
    (0.38, 1.00, 0.05),
    (0.52, 0.30, 0.30),
    (0.64, 0.05, 1.00),
    (0.76, 0.60, 0.00),
    (0.87, 0.00, 0.50),
)


def electron_microscopy(factors: F32, shape: tuple[int, ...], rng: np.random.Generator) -> F32:
    """Grains in channelling contrast: grain size, weakly composition (precipitates), no lattice.

    Grains are the Voronoi cells of jittered seeds: each pixel takes the greys of all seeds weighted
    by exp(-beta d^2), which tends to the nearest seed's as beta grows. The sum of squared weights
    falls at grain boundaries and draws the etched grooves. Shot noise goes as the square root of
    the signal.
    """
    count, size = len(factors), shape[-1]
    spacing = log_level(factors[:, 0], 0.21, 0.84)[:, :, 0]
    image = _grains(spacing, size, rng)
    shown = veiled(factors[:, 1], rng, 0.5 * _WEAK)
    # Heavier elements scatter more electrons back; they also gather in bright precipitates.
    image *= level(shown, 0.8, 1.2)
    image += 0.03 * smooth_field(rng, count, size, 3)
    amount = level(shown, 0.0, 14.0)[:, :, 0]
    place = rng.random((3, count, 18), dtype=np.float32)
    particles = blobs(
        place[0] * 2.0 - 1.0,
        place[1] * 2.0 - 1.0,
        0.035 + 0.02 * place[2],
        size,
        (np.arange(18) < amount).astype(np.float32),
    )
    image += 0.7 * np.minimum(particles, 1.0)
    shot = np.sqrt(np.clip(image, 0.02, 1.0))
    shot *= pixel_noise(rng, image.shape, 0.06)
    image += shot
    return image[:, None]


def spectroscopy(factors: F32, shape: tuple[int, ...], rng: np.random.Generator) -> F32:
    """Lorentzian lines on a fluorescent background: composition, weakly lattice, no grain size.

    The ratio of two phases' lines follows the composition; strain of the lattice shifts all lines
    together, as does an imperfect calibration.
    """
    count, length = len(factors), shape[-1]
    x = (axis(length)[None, :] + 1.0) * 0.5
    second = np.clip(level(factors[:, 1], 0.08, 0.92)[:, :, 0], 0.0, 1.0)
    shift = level(veiled(factors[:, 2], rng, _WEAK), -0.022, 0.022)[:, :, 0]
    width = uniform(rng, count, 0.009, 0.014)[:, :, 0]
    signal = np.zeros((count, length), np.float32)
    for position, first_phase, second_phase in _LINES:
        strength = first_phase * (1.0 - second) + second_phase * second
        strength = strength * np.exp(0.12 * rng.standard_normal((count, 1), dtype=np.float32))
        offset = (x - (position + shift)) / width
        signal += strength / (1.0 + np.square(offset))
    signal *= uniform(rng, count, 0.65, 0.90)[:, :, 0]
    decay = uniform(rng, count, 1.0, 4.0)[:, :, 0]
    signal += uniform(rng, count, 0.05, 0.25)[:, :, 0] * np.exp(-decay * x)
    ripple = x * uniform(rng, count, 2.0, 5.0)[:, :, 0] + uniform(rng, count, 0.0, 6.28)[:, :, 0]
    signal += 0.03 * np.sin(ripple) + 0.05
    shot = np.sqrt(np.maximum(signal, 0.02))
    signal += shot * pixel_noise(rng, signal.shape, 0.03)
    return signal[:, None]


def xrd(factors: F32, shape: tuple[int, ...], rng: np.random.Generator) -> F32:
    """Debye-Scherrer rings of a powder: lattice constant, weakly grain size, not composition.

    A reflection with spacing d = a / sqrt(h^2 + k^2 + l^2) leaves at the angle 2 theta with
    sin(theta) = wavelength / (2 d) (Bragg) and lands at distance tan(2 theta) from the beam. Rings
    widen as grains shrink (Scherrer). Preferred orientation makes rings uneven around.
    """
    count, size = len(factors), shape[-1]
    x, y = grid(size)
    x = x - uniform(rng, count, -0.05, 0.05)
    y = y - uniform(rng, count, -0.05, 0.05)
    radius = np.sqrt(np.square(x) + np.square(y))
    lattice = level(factors[:, 2], 3.3, 5.1) * uniform(rng, count, 0.99, 1.01)
    width = log_level(-veiled(factors[:, 0], rng, _WEAK), 0.022, 0.075)
    rings = np.zeros((count, size, size), np.float32)
    for square_sum, strength in _REFLECTIONS:
        sine = np.minimum(_WAVELENGTH * np.sqrt(square_sum) / (2.0 * lattice), 0.69)
        ring = np.tan(2.0 * np.arcsin(sine)) * 0.62
        rings += strength * np.exp(-np.square((radius - ring) / width))
    orientation = uniform(rng, count, -0.3, 0.3)
    rings *= 0.85 + orientation * (np.square(x) - np.square(y)) / (np.square(radius) + 1e-3)
    image = 0.72 * rings
    image += uniform(rng, count, 0.10, 0.22) * np.exp(-2.0 * radius) + 0.04
    image *= np.clip((radius - 0.12) * (size * 0.5), 0.06, 1.0)
    shot = np.sqrt(np.maximum(image, 0.01))
    image += shot * pixel_noise(rng, image.shape, 0.06)
    return image[:, None]


def _grains(spacing: F32, size: int, rng: np.random.Generator) -> F32:
    """Return Voronoi grains with dark boundaries, [N, H, W]; `spacing` [N, 1] in coordinates."""
    count = len(spacing)
    index = np.arange(_SEEDS * _SEEDS)
    place = rng.random((2, count, _SEEDS * _SEEDS), dtype=np.float32) * 0.9
    middle = (_SEEDS - 1) / 2.0 + 0.45
    x = ((index % _SEEDS - middle + place[0]) * spacing).astype(np.float32)
    y = ((index // _SEEDS - middle + place[1]) * spacing).astype(np.float32)
    grey = 0.36 + 0.34 * rng.random((count, _SEEDS * _SEEDS), dtype=np.float32)
    # With beta = 16 / spacing boundaries have one width whatever the grain size.
    radius = np.broadcast_to(np.sqrt(spacing / np.float32(32.0)), x.shape)
    line = axis(size)[:, None]
    scale = np.float32(np.sqrt(0.5)) / radius[:, None]
    across = np.exp(-np.square((line - x[:, None]) * scale))
    down = np.exp(-np.square((line - y[:, None]) * scale))
    # The floor keeps the square above float32's smallest number far from every seed.
    total = outer_sum(down, across) + np.float32(1e-18)
    image = outer_sum(down, across * grey[:, None]) / total
    purity = outer_sum(np.square(down), np.square(across)) / np.square(total)
    # Inside a grain one seed carries all weight (purity 1); on a boundary two share it (1/2).
    groove: F32 = 0.15 + 0.85 * np.clip(purity * 1.6 - 0.6, 0.0, 1.0)
    groove *= image
    return groove
