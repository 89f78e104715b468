"""Forward models of the medical family: factors are density, relaxation and nuclear atypia.

A lesion in an organ (ct), in a brain (mri), and its tissue under the microscope (histopathology).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fedfuse_ray.data.phantoms.fields import (
    F32,
    Ellipse,
    blobs,
    blur,
    grid,
    level,
    log_level,
    paint,
    pixel_noise,
    smooth_field,
    uniform,
    veiled,
)

_WEAK = 0.8
_ECHO_TIME_MS = 90.0
# Optical density of unit stain in red, green, blue (Ruifrok and Johnston 2001, normalised).
_HAEMATOXYLIN = np.array([0.65, 0.70, 0.29], np.float32).reshape(1, 3, 1, 1)
_EOSIN = np.array([0.07, 0.99, 0.11], np.float32).reshape(1, 3, 1, 1)
_NUCLEI = 24


def ct(factors: F32, shape: tuple[int, ...], rng: np.random.Generator) -> F32:
    """Attenuation of an abdominal slice: the lesion's density, weakly its oedema, not its nuclei.

    Noise is white noise through a band-pass, as filtered back-projection leaves it.
    """
    count, size = len(factors), shape[-1]
    jitter = _jitter(rng, count)
    body = Ellipse(
        jitter(0.05), jitter(0.05), 0.86 + jitter(0.06), 0.66 + jitter(0.06), jitter(0.18)
    )
    image = np.full((count, size, size), 0.03, np.float32)
    paint(image, body.mask(size), 0.30)
    paint(image, body.scaled(0.88).mask(size), 0.46)
    spine = Ellipse(*body.at(0.0, 0.58), 0.13 + jitter(0.02), 0.12 + jitter(0.02), body.angle)
    paint(image, spine.mask(size), 0.95)
    kidney = Ellipse(*body.at(0.50, 0.18), 0.17 + jitter(0.03), 0.21 + jitter(0.03), jitter(0.5))
    paint(image, kidney.mask(size), 0.62)
    bowel = Ellipse(
        *body.at(0.34 + jitter(0.1), -0.42), 0.15 + jitter(0.05), 0.09 + jitter(0.01), jitter(0.6)
    )
    paint(image, bowel.mask(size), 0.10)
    liver = Ellipse(*body.at(-0.36, -0.08), 0.44 + jitter(0.04), 0.42 + jitter(0.04), jitter(0.3))
    paint(image, liver.mask(size), 0.56)
    radius = 0.24 + jitter(0.03)
    lesion = Ellipse(
        *liver.at(jitter(0.25), jitter(0.25)), radius, radius * (1 + jitter(0.2)), liver.angle
    )
    # Oedema holds water: it relaxes slowly and attenuates a little less than the organ.
    paint(
        image,
        lesion.scaled(1.5).mask(size),
        0.56 - level(veiled(factors[:, 1], rng, _WEAK), -0.08, 0.22),
    )
    paint(image, lesion.mask(size), level(factors[:, 0], 0.12, 1.00))
    noise = pixel_noise(rng, image.shape, 0.08)
    image += blur(noise, 0.6) - blur(noise, 2.0)
    return image[:, None]


def mri(factors: F32, shape: tuple[int, ...], rng: np.random.Generator) -> F32:
    """T2-weighted head: the lesion's relaxation, weakly its necrosis (atypia), not its density.

    The signal of a tissue is rho exp(-TE / T2), under a smooth receive field, with Rician noise
    (the magnitude of a complex Gaussian).
    """
    count, size = len(factors), shape[-1]
    jitter = _jitter(rng, count)
    head = Ellipse(
        jitter(0.04), jitter(0.04), 0.74 + jitter(0.04), 0.90 + jitter(0.04), jitter(0.12)
    )
    image = np.full((count, size, size), 0.02, np.float32)
    paint(image, head.mask(size), 0.62)
    paint(image, head.scaled(0.92).mask(size), 0.06)
    brain = head.scaled(0.84)
    folds = smooth_field(rng, count, size, 14)
    paint(image, brain.mask(size), _spin_echo(0.95, 95.0) + 0.05 * folds)
    paint(image, brain.scaled(0.72).mask(size), _spin_echo(0.80, 75.0) + 0.02 * folds)
    for side in (-1.0, 1.0):
        place = brain.at(side * 0.15, -0.05)
        horn = Ellipse(*place, 0.06 + jitter(0.015), 0.22 + jitter(0.04), head.angle + side * 0.2)
        paint(image, horn.mask(size), _spin_echo(1.0, 1500.0))
    half: F32 = np.copysign(np.float32(1.0), jitter(1.0))
    radius = 0.30 + jitter(0.02)
    lesion = Ellipse(
        *brain.at(half * 0.44, jitter(0.2)), radius, radius * (1 + jitter(0.15)), jitter(1.5)
    )
    bright = _spin_echo(1.0, log_level(factors[:, 1], 36.0, 330.0))
    paint(image, lesion.mask(size), bright)
    necrosis = level(veiled(factors[:, 2], rng, 0.6 * _WEAK), 0.0, 0.8)
    paint(image, lesion.scaled(0.55).mask(size), bright * (1.0 - np.clip(necrosis, 0.0, 0.8)))
    image *= 1.0 + 0.06 * smooth_field(rng, count, size, 3)
    real, imaginary = pixel_noise(rng, (2, *image.shape), 0.03)
    np.hypot(image + real, imaginary, out=image)
    return image[:, None]


def histopathology(factors: F32, shape: tuple[int, ...], rng: np.random.Generator) -> F32:
    """Stained section: nuclear atypia, weakly the density of the stroma, not the relaxation.

    Stains absorb by Beer and Lambert's law: transmitted light is exp(-OD), the optical density
    linear in the amounts of haematoxylin (nuclei) and eosin (stroma).
    """
    count, size = len(factors), shape[-1]
    nuclei = _nuclei(factors[:, 2], size, rng)
    x, y = grid(size)
    angle = uniform(rng, count, 0.0, np.pi)
    phase = (x * np.cos(angle) + y * np.sin(angle)) * 9.0 + 2.0 * smooth_field(rng, count, size, 4)
    fibres = np.sin(phase)
    fibres *= 0.18
    fibres += 1.0 + 0.15 * smooth_field(rng, count, size, 6)
    stroma = fibres * level(veiled(factors[:, 0], rng, _WEAK), 0.12, 0.72)
    stroma *= uniform(rng, count, 0.9, 1.1)
    stroma *= 1.0 - 0.6 * nuclei
    chromatin = 1.0 + 0.15 * smooth_field(rng, count, size, 16)
    haematoxylin = nuclei * chromatin * level(factors[:, 2], 0.65, 1.35)
    haematoxylin *= uniform(rng, count, 0.88, 1.12)
    haematoxylin += 0.06
    density = haematoxylin[:, None] * _HAEMATOXYLIN
    density += np.maximum(stroma, 0.02)[:, None] * _EOSIN
    light: F32 = np.exp(-density, out=density)
    light *= 0.96
    light += pixel_noise(rng, light.shape, 0.015)
    return light


def _nuclei(atypia: F32, size: int, rng: np.random.Generator) -> F32:
    """Return the mask of nuclei, [N, H, W]: with atypia larger, more varied, longer and fewer."""
    count = len(atypia)
    radius = log_level(atypia, 0.045, 0.125)[:, :, 0]
    varied = level(atypia, 0.04, 0.16)[:, :, 0]
    radii = radius * np.exp(varied * rng.standard_normal((count, _NUCLEI), dtype=np.float32))
    # A jittered 5 by 5 lattice less one cell keeps nuclei apart without looking regular.
    cell = rng.permuted(np.tile(np.arange(25), (count, 1)), axis=1)[:, :_NUCLEI]
    place = rng.random((2, count, _NUCLEI), dtype=np.float32)
    x = (cell % 5 + 0.15 + 0.7 * place[0]) * 0.44 - 1.1
    y = (cell // 5 + 0.15 + 0.7 * place[1]) * 0.44 - 1.1
    kept = np.arange(_NUCLEI) < level(atypia, 24.0, 17.0)[:, :, 0]
    angle = rng.random((count, _NUCLEI), dtype=np.float32) * np.float32(2.0 * np.pi)
    reach = radii * level(atypia, 0.15, 0.60)[:, :, 0]
    dx, dy = reach * np.cos(angle), reach * np.sin(angle)
    # Two Gaussian lobes and a threshold make an ellipse at any angle, or a bean.
    field = blobs(
        np.concatenate([x - dx, x + dx], axis=1).astype(np.float32),
        np.concatenate([y - dy, y + dy], axis=1).astype(np.float32),
        np.concatenate([radii, radii], axis=1),
        size,
        np.concatenate([kept, kept], axis=1).astype(np.float32),
    )
    field -= 0.9
    field *= size * 0.09
    field += 0.5
    return np.clip(field, 0.0, 1.0, out=field)


def _spin_echo(proton_density: float, t2_ms: float | F32) -> F32:
    """Return a tissue's signal."""
    decay = np.exp(-_ECHO_TIME_MS / np.asarray(t2_ms, np.float32))
    return np.asarray(proton_density * decay, np.float32)


def _jitter(rng: np.random.Generator, count: int) -> Callable[[float], F32]:
    def draw(reach: float) -> F32:
        return uniform(rng, count, -reach, reach)

    return draw
