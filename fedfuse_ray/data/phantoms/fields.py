"""Drawing primitives for a whole batch at once, float32: masks, blobs, fields, noise, blur.

Coordinates run over [-1, 1] on both axes whatever the image size, so a phantom is the same scene at
32 and at 224 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
_FACTOR_LIMIT = 2.5


def axis(size: int) -> F32:
    """Return the pixel centres of one axis, float32 [size] in (-1, 1)."""
    return ((np.arange(size, dtype=np.float32) + 0.5) * (2.0 / size) - 1.0).astype(np.float32)


def grid(size: int) -> tuple[F32, F32]:
    """Return x as [1, 1, W] and y as [1, H, 1], ready to broadcast over a batch."""
    line = axis(size)
    return line[None, None, :], line[None, :, None]


def uniform(rng: np.random.Generator, count: int, low: float, high: float) -> F32:
    """Return float32 [count, 1, 1], uniform in [low, high)."""
    return (rng.random((count, 1, 1), dtype=np.float32) * (high - low) + low).astype(np.float32)


def level(factor: F32, low: float, high: float) -> F32:
    """Map factors [N] linearly to a physical quantity, `low` at -2 and `high` at +2, [N, 1, 1].

    Beyond 2.5 the factor is held, so that quantities stay physical.
    """
    held = np.clip(factor, -_FACTOR_LIMIT, _FACTOR_LIMIT)
    return (low + (high - low) * (held + 2.0) / 4.0).astype(np.float32).reshape(-1, 1, 1)


def log_level(factor: F32, low: float, high: float) -> F32:
    """Map factors [N] geometrically to a physical quantity, `low` at -2, `high` at +2."""
    return np.exp(level(factor, np.log(low), np.log(high)))


def veiled(factor: F32, rng: np.random.Generator, spread: float) -> F32:
    """Return what a modality shows of a factor that it sees weakly: the factor, with variation."""
    noise = rng.standard_normal(factor.shape, dtype=np.float32)
    return factor + np.float32(spread) * noise


@dataclass(frozen=True)
class Ellipse:
    """Ellipses, one for each specimen: centre, semi-axes and angle, each float32 [N, 1, 1]."""

    x: F32
    y: F32
    a: F32
    b: F32
    angle: F32

    def scaled(self, factor: float | F32) -> Ellipse:
        """Return the concentric ellipses with semi-axes times `factor`."""
        return Ellipse(self.x, self.y, self.a * factor, self.b * factor, self.angle)

    def at(self, u: float | F32, v: float | F32) -> tuple[F32, F32]:
        """Return the points at (u, v) in units of the semi-axes, in the ellipse's own frame."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        du, dv = self.a * u, self.b * v
        x: F32 = self.x + du * cos - dv * sin
        y: F32 = self.y + du * sin + dv * cos
        return x, y

    def mask(self, size: int) -> F32:
        """Return the anti-aliased indicator of the inside, float32 [N, size, size]."""
        x, y = grid(size)
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        u = x * (cos / self.a) + (y * sin - self.x * cos - self.y * sin) / self.a
        v = x * (-sin / self.b) + (y * cos + self.x * sin - self.y * cos) / self.b
        u *= u
        v *= v
        u += v
        np.sqrt(u, out=u)
        # The edge is one pixel wide: the mean semi-axis in pixels is the slope.
        slope = (self.a + self.b) * np.float32(size / 4.0)
        u *= -slope
        u += slope + np.float32(0.5)
        return np.clip(u, 0.0, 1.0, out=u)


def paint(image: F32, mask: F32, value: float | F32) -> None:
    """Blend `value` into `image` where `mask` is 1, in place."""
    image += mask * (value - image)


def blobs(x: F32, y: F32, radius: F32, size: int, weight: F32 | None = None) -> F32:
    """Sum Gaussian blobs, exp(-r^2 / (2 radius^2)), float32 [N, size, size].

    A Gaussian is the product of one in x and one in y, so the sum over blobs is a matrix product.

    Args:
        x: Centres, [N, K].
        y: Centres, [N, K].
        radius: Standard deviations, [N, K].
        size: Height and width.
        weight: Heights, [N, K]; 1 when omitted.
    """
    line = axis(size)
    scale = np.sqrt(0.5) / radius[:, :, None]
    across = np.exp(-np.square((line - x[:, :, None]) * scale))
    down = np.exp(-np.square((line - y[:, :, None]) * scale))
    if weight is not None:
        across = across * weight[:, :, None]
    total: F32 = np.matmul(down.transpose(0, 2, 1), across)
    return total


def smooth_field(
    rng: np.random.Generator, count: int, size: int, cells: int | tuple[int, int]
) -> F32:
    """Return smooth random fields of about unit variance, float32 [count, size, size].

    Args:
        rng: The stream.
        count: Number of fields.
        size: Height and width.
        cells: Independent values along an axis, or (down, across); 3 or more, larger is rougher.
    """
    down, across = (cells, cells) if isinstance(cells, int) else cells
    coarse = rng.standard_normal((count, down, across), dtype=np.float32)
    field: F32 = np.matmul(np.matmul(_basis(size, down), coarse), _basis(size, across).T)
    return field


def pixel_noise(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> F32:
    """Return white Gaussian noise, float32 of `shape`."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    noise *= np.float32(scale)
    return noise


def blur(images: F32, sigma: float) -> F32:
    """Blur the last two axes with a Gaussian of `sigma` pixels, edges mirrored."""
    kernel = _blur_matrix(images.shape[-1], sigma)
    blurred: F32 = np.matmul(np.matmul(kernel, images), kernel.T)
    return blurred


def blur_signal(signals: F32, sigma: float) -> F32:
    """Blur the last axis with a Gaussian of `sigma` bins, ends mirrored."""
    mirrored = np.concatenate([signals, signals[..., ::-1]], axis=-1)
    length = mirrored.shape[-1]
    response = np.exp(-0.5 * np.square(2.0 * np.pi * sigma * np.fft.rfftfreq(length)))
    smooth = np.fft.irfft(np.fft.rfft(mirrored) * response.astype(np.float32), length)
    return smooth[..., : length // 2].astype(np.float32)


@lru_cache(maxsize=64)
def _blur_matrix(size: int, sigma: float) -> F32:
    """Return the matrix of a one-dimensional Gaussian blur with mirrored edges, [size, size]."""
    at = np.arange(size, dtype=np.float64)
    rows = np.zeros((size, size))
    for image in (at, -1.0 - at, 2.0 * size - 1.0 - at):
        rows += np.exp(-0.5 * np.square((at[:, None] - image[None, :]) / sigma))
    return _frozen(rows / rows.sum(axis=1, keepdims=True))


@lru_cache(maxsize=64)
def _basis(size: int, cells: int) -> F32:
    # The outermost nodes lie half a spacing outside, so that the variance is even up to the edge.
    spacing = 2.0 / (cells - 2)
    nodes = (np.arange(cells) - 0.5) * spacing - 1.0
    rows = np.exp(-0.5 * np.square((axis(size)[:, None] - nodes[None, :]) / (0.6 * spacing)))
    return _frozen(rows / np.sqrt(np.square(rows).sum(axis=1, keepdims=True)))


def _frozen(array: npt.NDArray[np.float64]) -> F32:
    result = array.astype(np.float32)
    result.flags.writeable = False
    return result
