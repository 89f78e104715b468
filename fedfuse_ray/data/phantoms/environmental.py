"""Forward models of the environmental family: factors are vegetation, pattern and relief."""

from __future__ import annotations

import numpy as np

from fedfuse_ray.data.phantoms.fields import (
    F32,
    axis,
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
_TABLE = 64
# Reflectance in red, green, blue, near infrared.
_SOIL = np.array([0.34, 0.27, 0.20, 0.42], np.float32).reshape(1, 4, 1, 1)
_LEAF = np.array([0.07, 0.15, 0.06, 0.72], np.float32).reshape(1, 4, 1, 1)
_WATER = np.array([0.05, 0.09, 0.14, 0.02], np.float32).reshape(1, 4, 1, 1)
_HAZE = np.array([0.04, 0.06, 0.10, 0.02], np.float32).reshape(1, 4, 1, 1)


def satellite(factors: F32, shape: tuple[int, ...], rng: np.random.Generator) -> F32:
    """Red, green, blue and near infrared from orbit: vegetation, weakly pattern, not relief.

    Reflectance is a linear mixture of soil and leaf; leaf absorbs red and reflects near infrared,
    which is what a vegetation index measures. Parcels of land shrink with the pattern factor.
    """
    count, size = len(factors), shape[-1]
    shown = veiled(factors[:, 1], rng, _WEAK)
    mix = np.clip(level(shown, 0.0, 1.0), 0.0, 1.0)
    stand = (1.0 - mix) * smooth_field(rng, count, size, 6)
    stand += mix * smooth_field(rng, count, size, 16)
    stand += 0.6 * _parcels(shown, size, rng)
    stand -= stand.mean(axis=(1, 2), keepdims=True)
    stand *= 0.7
    stand += level(factors[:, 0], -1.3, 1.3)
    # Canopy closes where the stand is dense: the covered area, not only its shade, grows.
    cover = np.clip(0.9 * stand + 0.5, 0.05, 0.95)
    bands: F32 = _SOIL * uniform(rng, count, 0.85, 1.2)[:, None] * (1.0 - cover)[:, None]
    bands += _LEAF * cover[:, None]
    bands += _river(count, size, rng)[:, None] * (_WATER - bands)
    bands *= uniform(rng, count, 0.85, 1.2)[:, None]
    bands += uniform(rng, count, 0.0, 1.0)[:, None] * _HAZE
    bands += pixel_noise(rng, bands.shape, 0.015)
    return bands


def aerial(factors: F32, shape: tuple[int, ...], rng: np.random.Generator) -> F32:
    """Crop rows from a plane: their pattern, weakly the relief (hill shade), not the vegetation.

    Rows narrow with the pattern factor; their direction and colour are any. On uneven ground the
    light varies over the field and rows bend along contours.
    """
    count, size = len(factors), shape[-1]
    x, y = grid(size)
    frequency = log_level(factors[:, 1], 1.1, 4.6)
    hills = np.clip(smooth_field(rng, count, size, 4), -1.8, 1.8)
    hills -= hills.mean(axis=(1, 2), keepdims=True)
    unevenness = np.maximum(level(veiled(factors[:, 2], rng, _WEAK), -0.02, 0.26), 0.0)
    angle = uniform(rng, count, 0.0, np.pi)
    # A track parts two fields whose rows run across each other.
    across = x * np.cos(angle) + y * np.sin(angle)
    along = y * np.cos(angle) - x * np.sin(angle)
    track = across - uniform(rng, count, -0.6, 0.6)
    rows = np.where(track > 0, across, along) + 0.25 * unevenness * hills
    rows = np.sin(rows * (2.0 * np.pi * frequency) + uniform(rng, count, 0.0, 2.0 * np.pi))
    rows = np.clip(rows * 0.9 + 0.5, 0.0, 1.0)
    ripeness = uniform(rng, count, 0.0, 1.0)[:, None]
    crop = ripeness * _rgb(0.62, 0.56, 0.25) + (1.0 - ripeness) * _rgb(0.22, 0.46, 0.18)
    soil = _rgb(0.42, 0.31, 0.22) * uniform(rng, count, 0.8, 1.2)[:, None]
    image: F32 = soil + rows[:, None] * (crop - soil)
    edge = np.clip((0.09 - np.abs(track)) * (size * 0.5) + 0.5, 0.0, 1.0)
    paint(image, edge[:, None], _rgb(0.70, 0.64, 0.54))
    image *= np.exp(unevenness * hills)[:, None] * uniform(rng, count, 0.85, 1.15)[:, None]
    image += pixel_noise(rng, image.shape, 0.03)
    return image


def ground(factors: F32, shape: tuple[int, ...], rng: np.random.Generator) -> F32:
    """A view to the horizon: the skyline's relief, weakly vegetation, not the field pattern."""
    count, size = len(factors), shape[-1]
    _, y = grid(size)
    horizon = uniform(rng, count, 0.12, 0.28)
    height = log_level(factors[:, 2], 0.06, 1.15)
    sky = np.clip((y + 1.0) * 0.6, 0.0, 1.0)[:, None]
    clouds = np.clip(_streaks(count, size, rng) - 0.4, 0.0, 1.0)
    blue = _rgb(0.30, 0.52, 0.86)
    image: F32 = blue + sky * (_rgb(0.80, 0.87, 0.93) - blue) + 0.22 * clouds[:, None]
    for depth, colour in ((1.0, _rgb(0.47, 0.53, 0.64)), (0.55, _rgb(0.34, 0.38, 0.40))):
        ridge = horizon - depth * height * _skyline(count, size, rng)
        paint(image, np.clip((y - ridge) * (size * 0.5) + 0.5, 0.0, 1.0)[:, None], colour)
    near = horizon + 0.08 + 0.04 * _skyline(count, size, rng)
    cover = np.clip(level(veiled(factors[:, 0], rng, _WEAK), 0.05, 0.95), 0.0, 1.0)[:, None]
    texture = 1.0 + 0.12 * _streaks(count, size, rng)[:, None]
    land = _rgb(0.55, 0.44, 0.31) + cover * (_rgb(0.20, 0.44, 0.16) - _rgb(0.55, 0.44, 0.31))
    paint(image, np.clip((y - near) * (size * 0.5) + 0.5, 0.0, 1.0)[:, None], land * texture)
    light = uniform(rng, count, 0.75, 1.12)[:, None]
    warm = uniform(rng, count, -0.06, 0.06)[:, None]
    image *= light * (1.0 + warm * _rgb(1.0, 0.0, -1.0))
    image += pixel_noise(rng, image.shape, 0.02)
    return image


def _parcels(pattern: F32, size: int, rng: np.random.Generator) -> F32:
    """Return a patchwork of random values, [N, H, W]; parcels shrink with the pattern factor."""
    count = len(pattern)
    x, y = grid(size)
    frequency = log_level(pattern, 0.8, 4.0)
    angle = uniform(rng, count, 0.0, np.pi)
    cos, sin = frequency * np.cos(angle), frequency * np.sin(angle)
    column = np.floor(x * cos + y * sin + uniform(rng, count, 20.0, 30.0))
    row = np.floor(0.7 * (y * cos - x * sin) + uniform(rng, count, 20.0, 30.0))
    index = (column * 7.0 + row * 19.0).astype(np.int32) % _TABLE
    index += np.arange(count, dtype=np.int32)[:, None, None] * _TABLE
    values = rng.standard_normal(count * _TABLE, dtype=np.float32)
    return np.take(values, index)


def _river(count: int, size: int, rng: np.random.Generator) -> F32:
    """Return the mask of a meandering river, [N, H, W]; every other scene has none."""
    x, y = grid(size)
    bend = uniform(rng, count, 1.5, 4.0) * y + uniform(rng, count, 0.0, 6.28)
    middle = (
        uniform(rng, count, -0.9, 0.9) + 0.15 * np.sin(bend) + uniform(rng, count, -0.5, 0.5) * y
    )
    width = uniform(rng, count, -0.08, 0.08)
    mask: F32 = np.clip((width - np.abs(x - middle)) * (size * 0.5) + 0.5, 0.0, 1.0)
    mask *= width > 0
    return mask


def _skyline(count: int, size: int, rng: np.random.Generator) -> F32:
    """Return peaks between 0 and about 1, [N, 1, W]: folded sines, amplitude falling with pitch."""
    x = axis(size)[None, :]
    total = np.zeros((count, size), np.float32)
    for octave in range(4):
        pitch = 1.3 * 2.0**octave * uniform(rng, count, 0.8, 1.25)[:, :, 0]
        wave = np.abs(np.sin(x * pitch + uniform(rng, count, 0.0, np.pi)[:, :, 0]))
        total += (1.0 - wave) * 0.5 ** (octave + 0.7)
    return total[:, None, :]


def _streaks(count: int, size: int, rng: np.random.Generator) -> F32:
    """Return fields that vary faster down than across, as clouds and grass seen at a low angle."""
    broad = smooth_field(rng, count, size, 4)
    return 0.6 * broad + 0.7 * smooth_field(rng, count, size, (18, 5))


def _rgb(red: float, green: float, blue: float) -> F32:
    return np.array([red, green, blue], np.float32).reshape(1, 3, 1, 1)
