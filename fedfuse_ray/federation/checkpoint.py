"""Checkpoints: one checked file a round, whole or absent.

A round is a pure function of the checkpoint before it, so a run that is continued from one, or a
round that is tried again, gives the identical result and spends no privacy budget twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedfuse_ray.blocks import Blocks
from fedfuse_ray.errors import FedfuseError
from fedfuse_ray.federation import archive

_KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """All that the next round depends on.

    Attributes:
        round: The last round that is in it; 0 before the first.
        weights: The global model.
        strategy: The server strategy's state.
        institutions: Each institution's own state, by name.
    """

    round: int
    weights: Blocks
    strategy: Blocks = field(default_factory=dict)
    institutions: dict[str, Blocks] = field(default_factory=dict)


def path_of(folder: Path, round: int) -> Path:
    """Return the checkpoint file of a round."""
    return folder / f"round-{round:06d}.npz"


def round_of(path: Path) -> int:
    """Return the round of a checkpoint file, from its name."""
    return int(path.stem.removeprefix("round-"))


def clear(folder: Path) -> None:
    """Remove an older run's checkpoints, so that a resume can't pick them up."""
    for old in folder.glob("*.npz"):
        old.unlink(missing_ok=True)


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint atomically, and drop all but the newest two."""
    arrays: dict[str, npt.NDArray[np.float32]] = {}
    arrays |= {f"weights|{name}": vector for name, vector in checkpoint.weights.items()}
    arrays |= {f"strategy|{name}": vector for name, vector in checkpoint.strategy.items()}
    for who, state in checkpoint.institutions.items():
        arrays |= {f"institution|{who}|{name}": vector for name, vector in state.items()}
    path = path_of(folder, checkpoint.round)
    archive.write(path, {"round": checkpoint.round}, arrays)
    for old in sorted(folder.glob("round-*.npz"))[:-_KEPT]:
        old.unlink(missing_ok=True)
    return path


def read(path: Path) -> Checkpoint:
    """Read a checkpoint; its digest is verified.

    Raises:
        FedfuseError: The file is missing, truncated or altered.
    """
    meta, arrays = archive.read(path)
    weights: Blocks = {}
    strategy: Blocks = {}
    institutions: dict[str, Blocks] = {}
    for key, vector in arrays.items():
        kind, _, name = key.partition("|")
        if kind == "weights":
            weights[name] = vector
        elif kind == "strategy":
            strategy[name] = vector
        else:
            who, _, block = name.partition("|")
            institutions.setdefault(who, {})[block] = vector
    return Checkpoint(meta["round"], weights, strategy, institutions)


def latest(folder: Path, at_most: int) -> Path | None:
    """Return the newest readable checkpoint of round `at_most` or before, or None."""
    for path in sorted(folder.glob("round-*.npz"), reverse=True):
        if round_of(path) > at_most:
            continue
        try:
            read(path)
        except FedfuseError:
            continue
        return path
    return None
