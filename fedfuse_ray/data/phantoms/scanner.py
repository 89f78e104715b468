"""What an instrument adds to an image: gain, offset, tone curve, blur, noise, and their drift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedfuse_ray.data.phantoms.fields import F32, blur, blur_signal
from fedfuse_ray.rng import generator

# The spread over instruments at skew.feature = 1, in units of the image's range.
_GAIN, _OFFSET, _TONE, _BLUR, _NOISE = 0.30, 0.10, 0.60, 0.80, 0.08
# The change from the first to the last specimen at skew.temporal = 1.
_GAIN_DRIFT, _OFFSET_DRIFT, _BLUR_DRIFT, _NOISE_DRIFT = 0.35, 0.12, 0.5, 0.05
_SETTINGS = 5
# The widest blur, as a fraction of the image or the signal.
_BLUR_SIGMA = 1.2 / 32.0


@dataclass(frozen=True)
class Scanner:
    """The instrument state for each specimen of a batch; every array is float32 [N].

    Attributes:
        gain: Multiplies intensities.
        offset: Added to intensities.
        tone: Curvature of the response, in [-1, 1]; 0 is linear.
        blur: Part of the light that is blurred, in [0, 1].
        noise: Standard deviation of the detector's noise.
    """

    gain: F32
    offset: F32
    tone: F32
    blur: F32
    noise: F32

    def rows(self, rows: slice) -> Scanner:
        """Return the states of some of the specimens."""
        return Scanner(
            self.gain[rows], self.offset[rows], self.tone[rows], self.blur[rows], self.noise[rows]
        )

    def apply(self, images: F32, rng: np.random.Generator) -> F32:
        """Return the images as the instrument records them.

        Args:
            images: [N, C, H, W] or signals [N, C, L], values about [0, 1]; may be overwritten.
            rng: The stream of the detector's noise.

        Returns:
            float32 of the same shape, in [0, 1].
        """
        column = (-1, *(1,) * (images.ndim - 1))
        if self.blur.any():
            sigma = _BLUR_SIGMA * images.shape[-1]
            smooth = blur(images, sigma) if images.ndim == 4 else blur_signal(images, sigma / 4.0)
            images += self.blur.reshape(column) * (smooth - images)
        np.clip(images, 0.0, 1.0, out=images)
        if self.tone.any():
            images += self.tone.reshape(column) * images * (1.0 - images)
        images *= self.gain.reshape(column)
        images += self.offset.reshape(column)
        if self.noise.any():
            noise = rng.standard_normal(images.shape, dtype=np.float32)
            images += self.noise.reshape(column) * noise
        return np.clip(images, 0.0, 1.0, out=images)


def ideal(count: int) -> Scanner:
    """Return the instrument that adds nothing, for `count` specimens."""
    zero = np.zeros(count, np.float32)
    return Scanner(np.ones(count, np.float32), zero, zero, zero, zero)


def draw_settings(
    seed: int,
    purpose: str,
    sites: Sequence[str],
    modality: str,
    count: int,
    rng: np.random.Generator,
) -> F32:
    """Choose an instrument for each specimen among those of some sites.

    A site's instrument is five standard normals, the same wherever it is asked for; `rng` only
    chooses the site.

    Returns:
        float32 [count, 5].
    """
    chosen, place = np.unique(rng.integers(0, len(sites), count), return_inverse=True)
    bank = [
        generator(seed, purpose, sites[site], modality).standard_normal(_SETTINGS)
        for site in chosen
    ]
    return np.clip(np.reshape(bank, (-1, _SETTINGS)), -2.0, 2.0).astype(np.float32)[place]


def at_times(
    settings: F32, times: npt.NDArray[np.float32], feature: float, temporal: float
) -> Scanner:
    """Return the state of each specimen's instrument when the specimen was acquired.

    Settings are those of `draw_settings`, [N, 5], times in [0, 1]; `feature` and `temporal`, 0 to
    1, are the strengths of the differences between instruments and of the drift.
    """
    age = np.float32(temporal) * times
    drift = np.tanh(settings[:, 0])
    spread = np.float32(feature) * settings
    return Scanner(
        gain=np.exp(_GAIN * spread[:, 0] - _GAIN_DRIFT * age),
        offset=_OFFSET * spread[:, 1] + _OFFSET_DRIFT * drift * age,
        tone=np.clip(_TONE * spread[:, 2], -1.0, 1.0),
        blur=np.clip(_BLUR * np.abs(spread[:, 3]) + _BLUR_DRIFT * age, 0.0, 1.0),
        noise=_NOISE * np.abs(spread[:, 4]) + _NOISE_DRIFT * age,
    )
