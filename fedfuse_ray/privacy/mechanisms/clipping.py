"""Per-record clipping, jointly over all blocks that a record touches.

Per-record gradients come as [B, ...] tensors of each block's parameters, a row for every record.
The norms are taken over all blocks of a group at once, and the clipped sum is one matrix-vector
product per parameter tensor: no clipped copy of the gradients is ever made.

Formal guarantees: adding or removing one record changes the group's sum by at most its clip norm in
L2, up to float32 rounding of the sum itself; factors are shrunk by 2e-5 to pay for the rounding of
norms and products.

| a record's gradient      | it adds                                |
|--------------------------|----------------------------------------|
| norm at most C           | itself, unscaled                       |
| norm above C             | itself, scaled to norm C               |
| zero                     | zero                                   |
| any NaN or infinity      | zero, in every block and every group   |
| too large for float64    | zero                                   |
| no records at all (B=0)  | sums are zero                          |
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fedfuse_ray.blocks import Blocks
from fedfuse_ray.errors import InputError

if TYPE_CHECKING:
    import torch

Norms = npt.NDArray[np.float64]

JOINT = "joint"
_SHRINK = 1.0 - 2e-5
_PIECE = 512


@dataclass(frozen=True, slots=True)
class ClippedSum:
    """A clipped sum, and what it is made of. Only `sums` may leave, and only with noise.

    Attributes:
        sums: Block name to the sum of clipped gradients, float32 [P].
        norms: Group name to each record's norm before clipping, float64 [B]; NaN or infinity
            where the record was dropped.
    """

    sums: Blocks
    norms: dict[str, Norms]


def assign_groups(blocks: Sequence[str], groups: Sequence[str]) -> dict[str, str]:
    """Return each block's clipping group.

    A block belongs to the group of its own name, else to the one named like a part of it (`ct`
    holds `encoder/ct`, and `encoder/ct@edge` unless `ct@edge` is a group too), else to `rest`.
    Without groups every block is in `joint`.

    Raises:
        InputError: A block that no group would clip, or a group without blocks.
    """
    if not groups:
        return dict.fromkeys(blocks, JOINT)
    assigned: dict[str, str] = {}
    for block in blocks:
        parts = [n for p in reversed(block.split("/")) for n in (p, p.partition("@")[0])]
        choice = next((name for name in (block, *parts) if name in groups), "rest")
        if choice not in groups:
            raise InputError(
                "privacy.groups", list(groups), f"no group clips block {block!r}; add 'rest'"
            )
        assigned[block] = choice
    if idle := sorted(set(groups) - set(assigned.values()) - {"rest"}):
        raise InputError("privacy.groups", idle[0], f"holds no block of {list(blocks)}")
    return assigned


def clip_factors(norms: Norms, clip_norm: float) -> Norms:
    """Return each record's factor min(1, C / norm), 0 where the norm is not finite."""
    if not clip_norm > 0.0:
        raise InputError("privacy.clip_norm", clip_norm, "use a positive number")
    scale = np.divide(clip_norm * _SHRINK, norms, out=np.ones_like(norms), where=norms > clip_norm)
    return np.where(np.isfinite(norms), scale, 0.0)


def clip_and_sum_torch(
    gradients: Mapping[str, Sequence[torch.Tensor]],
    clip_norms: Mapping[str, float],
    groups: Mapping[str, str] | None = None,
) -> ClippedSum:
    """Clip every record and add up, in torch.

    Args:
        gradients: Block name to the per-record gradients of its parameters, in the order in which
            the block is flattened, each [B, ...] (what vmap or hooks give, without copies); all
            blocks have the same B, and a record that does not touch a block has zeros there.
        clip_norms: C_m by group; `{"joint": C}` without groups.
        groups: Group of every block, from `assign_groups`; null puts all in `joint`.

    Raises:
        InputError: Blocks of different B, or a block without a clip norm.
    """
    import torch

    members = _members({k: v[0] for k, v in gradients.items()}, clip_norms, groups)
    norms: dict[str, Norms] = {}
    for name, blocks in members.items():
        squares = [_squares_torch(part) for block in blocks for part in gradients[block]]
        norms[name] = torch.stack(squares).sum(0).sqrt().cpu().numpy()
    factors, finite = _factors(norms, clip_norms)
    sums: Blocks = {}
    for name, blocks in members.items():
        for block in blocks:
            parts = [_flat(part) for part in gradients[block]]
            weights = torch.from_numpy(factors[name]).to(parts[0])
            if finite is not None:
                kept = torch.from_numpy(finite).to(parts[0].device)
                weights, parts = weights[kept], [part[kept] for part in parts]
            total = torch.cat([weights @ part for part in parts])
            sums[block] = total.to(torch.float32).cpu().numpy()
    return ClippedSum({block: sums[block] for block in gradients}, norms)


def _members(
    gradients: Mapping[str, object],
    clip_norms: Mapping[str, float],
    groups: Mapping[str, str] | None,
) -> dict[str, list[str]]:
    sizes = {block: len(rows) for block, rows in gradients.items()}  # type: ignore[arg-type]
    if len(set(sizes.values())) > 1:
        raise InputError("gradients", sizes, "every block needs a row for every record")
    members: dict[str, list[str]] = {}
    for block in gradients:
        name = JOINT if groups is None else groups.get(block, "")
        if name not in clip_norms:
            raise InputError("privacy.clip_norm", block, "no clip norm covers this block")
        members.setdefault(name, []).append(block)
    return members


def _factors(
    norms: Mapping[str, Norms], clip_norms: Mapping[str, float]
) -> tuple[dict[str, Norms], npt.NDArray[np.bool_] | None]:
    """Return factors by group, and which records stay; null when all do (the usual case)."""
    finite = np.logical_and.reduce([np.isfinite(values) for values in norms.values()])
    factors = {name: clip_factors(values, clip_norms[name]) for name, values in norms.items()}
    return factors, None if finite.all() else finite


def _squares_torch(rows: torch.Tensor) -> torch.Tensor:
    """Return squared norms in double, without a double copy of the rows.

    float32 norms of short pieces, added up in double: each piece is exact to 1.5e-5 in the worst
    case, which `_SHRINK` covers.
    """
    import torch

    flat = _flat(rows)
    whole = flat.shape[1] // _PIECE
    pieces = flat[:, : whole * _PIECE].reshape(flat.shape[0], whole, _PIECE)
    rest = torch.linalg.vector_norm(flat[:, whole * _PIECE :], dim=1).double().square()
    squares = rest + torch.linalg.vector_norm(pieces, dim=2).double().square().sum(1)
    if not bool(torch.isfinite(squares).all()):
        # Rare: NaN, infinity, or a finite value whose square overflows float32.
        squares = torch.linalg.vector_norm(flat.double(), dim=1).square()
    return squares


def _flat(rows: torch.Tensor) -> torch.Tensor:
    # Not -1: that is ambiguous for an empty batch.
    return rows.detach().reshape(rows.shape[0], math.prod(rows.shape[1:]))
