"""How close a reconstruction is: PSNR, SSIM, and whether it singles out the right specimen.

SSIM: Wang et al., 2004, doi 10.1109/TIP.2003.819861, with a uniform 7-wide window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

Array = npt.NDArray[np.float64]

_WINDOW = 7
_C1, _C2 = 0.01**2, 0.03**2
_BEST_PSNR = 100.0


def psnr(original: Array, reconstruction: Array) -> float:
    """Return the peak signal-to-noise ratio in dB of values in [0, 1], at most 100."""
    error = float(np.mean((original - reconstruction) ** 2))
    return min(_BEST_PSNR, -10.0 * math.log10(max(error, 1e-12)))


def ssim(original: Array, reconstruction: Array) -> float:
    """Return the mean structural similarity of [C, H, W] or [C, L], values in [0, 1]."""
    shape = (1, *(min(_WINDOW, size) for size in original.shape[1:]))
    a, b = (sliding_window_view(x, shape) for x in (original, reconstruction))
    axes = tuple(range(original.ndim, 2 * original.ndim))
    mean_a, mean_b = a.mean(axes), b.mean(axes)
    var_a, var_b = a.var(axes), b.var(axes)
    covariance = (a * b).mean(axes) - mean_a * mean_b
    above = (2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)
    below = (mean_a**2 + mean_b**2 + _C1) * (var_a + var_b + _C2)
    return float(np.mean(above / below))


def matched(originals: Sequence[Array], reconstructions: Sequence[Array]) -> tuple[int, ...]:
    """Return which reconstruction belongs to each original: the order of least squared error.

    A batch has no order, so an attack on it finds its members in any. For a handful at most.
    """
    errors = np.array([[np.mean((o - r) ** 2) for r in reconstructions] for o in originals])
    every = range(len(originals))
    return min(permutations(every), key=lambda order: sum(errors[i, order[i]] for i in every))


def identified(reconstruction: Array, original: Array, decoys: Array) -> bool:
    """Whether the reconstruction is nearer to its original than to every decoy, [N, ...]."""
    own = float(np.sum((reconstruction - original) ** 2))
    others = ((decoys - reconstruction[None]) ** 2).reshape(len(decoys), -1).sum(axis=1)
    return bool(np.all(own < others))
