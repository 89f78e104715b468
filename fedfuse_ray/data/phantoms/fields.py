"""Drawing primitives for a whole batch at once, float32: masks, blobs, fields, noise, blur.

Nothing is multiplied by BLAS, whose sums depend on the processor and on the number of threads:
`np.einsum` and sums of arrays add up in one order.

Coordinates run over [-1, 1] on both axes whatever the image size, so a phantom is the same scene at
32 and at 224 pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
_FACTOR_LIMIT = 2.5
_CACHED = 1 << 14  # entries to blur at once


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

    A Gaussian is the product of one in x and one in y, so this is a sum of outer products.

    Args:
        x: Centres, [N, K].
        y: Centres, [N, K].
        radius: Standard deviations, [N, K].
        size: Height and width.
        weight: Heights, [N, K]; 1 when omitted.
    """
    line = axis(size)[:, None]
    scale = np.sqrt(0.5) / radius[:, None]
    across = np.exp(-np.square((line - x[:, None]) * scale))
    down = np.exp(-np.square((line - y[:, None]) * scale))
    if weight is not None:
        across = across * weight[:, None]
    return outer_sum(down, across)


def outer_sum(down: F32, across: F32) -> F32:
    """Return the sum over K of outer products, float32 [N, H, W], of [N, H, K] and [N, W, K]."""
    total: F32 = np.einsum("nyk,nxk->nyx", down, across)
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
    rows = np.einsum("ndc,cx->ndx", coarse, _basis(size, across))
    field: F32 = np.einsum("dy,ndx->nyx", _basis(size, down), rows)
    return field


def pixel_noise(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> F32:
    """Return white Gaussian noise, float32 of `shape`."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    noise *= np.float32(scale)
    return noise


def blur(images: F32, sigma: float) -> F32:
    """Blur the last two axes with a Gaussian of `sigma` pixels, edges mirrored."""
    height, width = images.shape[-2:]
    taps = _taps(sigma, min(height, width))
    every, blurred = images.reshape(-1, height, width), np.empty(images.shape, np.float32)
    step = max(1, _CACHED // (height * width))
    for start in range(0, len(every), step):
        part = every[start : start + step]
        for along in (2, 1):
            part = _blurred(part, taps, along)
        blurred.reshape(every.shape)[start : start + step] = part
    return blurred


def _blurred(images: F32, taps: F32, along: int) -> F32:
    """Add up copies shifted along an axis, in one order; `taps` are their weights, of one side."""
    reach, turned = len(taps) - 1, np.flip(images, along)
    ends = np.split(turned, [reach, turned.shape[along] - reach], along)
    wide = np.concatenate((ends[2], images, ends[0]), along)
    # In memory a shift runs on into the next row or image; margins are cut off again.
    stride = wide.shape[2] if along == 1 else 1
    flat, total = wide.reshape(-1), np.empty_like(wide)
    inner = total.reshape(-1)[reach * stride : -reach * stride]
    np.multiply(flat[reach * stride : -reach * stride], taps[0], out=inner)
    pair = np.empty_like(inner)
    for shift in range(1, reach + 1):
        left, right = (reach - shift) * stride, (reach + shift) * stride
        np.add(flat[left : left + inner.size], flat[right : right + inner.size], out=pair)
        pair *= taps[shift]
        inner += pair
    return np.split(total, [reach, -reach], along)[1]


def blur_signal(signals: F32, sigma: float) -> F32:
    """Blur the last axis with a Gaussian of `sigma` bins, ends mirrored."""
    mirrored = np.concatenate([signals, signals[..., ::-1]], axis=-1)
    length = mirrored.shape[-1]
    response = np.exp(-0.5 * np.square(2.0 * np.pi * sigma * np.fft.rfftfreq(length)))
    smooth = np.fft.irfft(np.fft.rfft(mirrored) * response.astype(np.float32), length)
    return smooth[..., : length // 2].astype(np.float32)


@lru_cache(maxsize=64)
def _taps(sigma: float, size: int) -> F32:
    """Return a Gaussian's middle and one half, to three sigma; both halves add up to 1."""
    half = np.exp(-0.5 * np.square(np.arange(min(math.ceil(3.0 * sigma), size) + 1) / sigma))
    return _frozen(half / (2.0 * half.sum() - 1.0))


@lru_cache(maxsize=64)
def _basis(size: int, cells: int) -> F32:
    """Return the weights of the nodes, [cells, size]."""
    # The outermost nodes lie half a spacing outside, so that the variance is even up to the edge.
    spacing = 2.0 / (cells - 2)
    nodes = (np.arange(cells) - 0.5) * spacing - 1.0
    rows = np.exp(-0.5 * np.square((axis(size) - nodes[:, None]) / (0.6 * spacing)))
    return _frozen(rows / np.sqrt(np.square(rows).sum(axis=0)))


def _frozen(array: npt.NDArray[np.float64]) -> F32:
    result = array.astype(np.float32)
    result.flags.writeable = False
    return result
