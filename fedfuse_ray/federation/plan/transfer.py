"""The weights that a federation starts from: drawn from the seed, or taken over from another run.

Transfer starts blocks from an earlier federation's last checkpoint: those that all domains share
(the fusion), or one modality's encoder from another's. Yosinski et al., 2014, arXiv 1411.1792.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fedfuse_ray.blocks import Blocks, Vector
from fedfuse_ray.config import Experiment
from fedfuse_ray.config.settings.model import TransferConfig
from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.checkpoints import checkpoint as checkpoints
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.models.initial import block_shapes, initial_blocks
from fedfuse_ray.models.spec import ModelSpec

_FIELD = "model.transfer"
Shapes = tuple[tuple[int, ...], ...]


def first_weights(spec: ModelSpec) -> Blocks:
    """Return the weights before the first round, the same wherever they are built.

    Raises:
        InputError: The earlier run's weights can't be had, or don't fit.
    """
    drawn = initial_blocks(spec)
    if spec.config.transfer is not None:
        drawn |= _taken(spec.config.transfer, block_shapes(spec))
    return drawn


def check(plan: Plan, earlier: Sequence[Experiment]) -> None:
    """Check, before anything starts, that the weights can be taken over.

    Args:
        plan: The federation that is to start.
        earlier: The experiment of `model.transfer.run`, the one that it took weights from itself,
            and so on.

    Raises:
        InputError: They can't be had or don't fit; or this run is private and the earlier one
            trained on the same institutions, whose loss this run's ledger would not show.
    """
    transfer = plan.spec.config.transfer
    if transfer is None:
        return
    _taken(transfer, block_shapes(plan.spec))
    own = [name for p in plan.participants for name in p.members]
    known = {i.name for e in earlier for i in e.institutions if i.takes_part}
    if not all(e.institutions for e in earlier):  # a manifest names them: none is known to differ
        known |= set(own)
    both = [name for name in own if name in known]
    if plan.privacy is not None and both:
        raise InputError(
            f"{_FIELD}.run",
            transfer.run,
            f"that run trained on {both[0]!r} too, and its privacy loss would not be in this "
            "run's ledger; take over weights of other institutions only",
        )


def _taken(transfer: TransferConfig, shapes: Mapping[str, Shapes]) -> Blocks:
    """Return the blocks that the earlier run gives."""
    there = _last_weights(transfer)
    pairs = transfer.blocks or {
        name: name for name, own in shapes.items() if name in there and _fits(own, there[name])
    }
    if not pairs:
        raise InputError(
            f"{_FIELD}.run", transfer.run, "none of its blocks is also one of this run"
        )
    taken = {}
    for here, donor in pairs.items():
        field = f"{_FIELD}.blocks.{here}"
        if here not in shapes:
            raise InputError(field, donor, f"this run has no block {here!r}; it has {list(shapes)}")
        if donor not in there:
            raise InputError(field, donor, f"the earlier run has no such block; {list(there)}")
        taken[here] = _fitted(there[donor], shapes[here], field, donor)
    return taken


def _last_weights(transfer: TransferConfig) -> Blocks:
    folder = Path(transfer.run) / "checkpoints"
    path = checkpoints.latest(folder, at_most=2**63)
    if path is None:
        raise InputError(
            f"{_FIELD}.run", transfer.run, "holds no checkpoint; name the folder of a federation"
        )
    return checkpoints.read(path).weights


def _fits(shapes: Shapes, vector: Vector) -> bool:
    return sum(map(math.prod, shapes)) == vector.size


def _fitted(vector: Vector, shapes: Shapes, field: str, donor: str) -> Vector:
    """Return a block's vector for these shapes.

    Only a first convolution may differ, by its channels: it takes the mean over those of the
    earlier run, scaled to keep its response, as for ImageNet's weights on other images.
    """
    if _fits(shapes, vector):
        return vector
    stem = next((i for i, shape in enumerate(shapes) if len(shape) >= 3), None)
    if stem is not None:
        out, channels, *kernel = shapes[stem]
        start = sum(map(math.prod, shapes[:stem]))
        rest = sum(map(math.prod, shapes)) - start - math.prod(shapes[stem])
        cells = out * math.prod(kernel)
        size = vector.size - start - rest
        if size > 0 and size % cells == 0:
            theirs = vector[start : start + size].reshape(out, size // cells, *kernel)
            mean = theirs.mean(axis=1, keepdims=True) * (theirs.shape[1] / channels)
            own = np.broadcast_to(mean, shapes[stem]).astype(np.float32)
            return np.concatenate([vector[:start], own.reshape(-1), vector[start + size :]])
    raise InputError(
        field,
        donor,
        f"has {vector.size} parameters where {sum(map(math.prod, shapes))} are needed; both runs "
        "need encoders of one kind and width, and one model.embedding_dim",
    )
