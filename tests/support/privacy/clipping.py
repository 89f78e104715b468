"""Production's clip over numpy gradients, and a plain clip of one record after the other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from fedfuse_ray.privacy.mechanisms.clipping import ClippedSum, clip_and_sum_torch

Rows = npt.NDArray[np.floating]


def clipped(
    gradients: Mapping[str, Rows],
    clip_norms: Mapping[str, float],
    groups: Mapping[str, str] | None = None,
) -> ClippedSum:
    """Clip per-record gradients [B, P] by what training clips them with."""
    tensors = {name: [torch.from_numpy(rows)] for name, rows in gradients.items()}
    return clip_and_sum_torch(tensors, clip_norms, groups)


def one_by_one(gradients: Mapping[str, Rows], clip_norm: float) -> dict[str, Rows]:
    """Clip record by record over all blocks, in double precision; what isn't finite is left out."""
    sums = {name: np.zeros(rows.shape[1]) for name, rows in gradients.items()}
    for record in range(len(next(iter(gradients.values())))):
        parts = {name: rows[record].astype(np.float64) for name, rows in gradients.items()}
        norm = np.sqrt(sum(float(part @ part) for part in parts.values()))
        if not np.isfinite(norm):
            continue
        for name, part in parts.items():
            sums[name] += part * min(1.0, clip_norm / norm if norm else 1.0)
    return sums


def norms_of(gradients: Mapping[str, Rows]) -> Rows:
    """Return each record's norm over all blocks, in double precision, [B]."""
    rows = np.concatenate([each.astype(np.float64) for each in gradients.values()], axis=1)
    return np.linalg.norm(rows, axis=1)
