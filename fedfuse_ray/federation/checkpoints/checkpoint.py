"""Checkpoints: one checked file a round, whole or absent.

A round is a pure function of the checkpoint before it, so a run that is continued from one, or a
round that is tried again, gives the identical result and spends no privacy budget twice.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedfuse_ray.blocks import Blocks
from fedfuse_ray.errors import FedfuseError
from fedfuse_ray.federation.checkpoints import archive
from fedfuse_ray.federation.messages.records import TrainRecord
from fedfuse_ray.federation.modes.buffered import Carried
from fedfuse_ray.network import Flight, Timing

_KEPT = 2
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """All that the next round depends on.

    Attributes:
        round: The last round that is in it; 0 before the first.
        weights: The global model.
        strategy: The server strategy's state.
        institutions: Each institution's own state, by name.
        carried: Updates on their way to an asynchronous server, by institution.
    """

    round: int
    weights: Blocks
    strategy: Blocks = field(default_factory=dict)
    institutions: dict[str, Blocks] = field(default_factory=dict)
    carried: dict[str, Carried] = field(default_factory=dict)


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
    arrays: dict[str, npt.NDArray[Any]] = {}
    arrays |= {f"weights|{name}": vector for name, vector in checkpoint.weights.items()}
    arrays |= {f"strategy|{name}": vector for name, vector in checkpoint.strategy.items()}
    for who, state in checkpoint.institutions.items():
        arrays |= {f"institution|{who}|{name}": vector for name, vector in state.items()}
    meta: dict[str, Any] = {"round": checkpoint.round}
    if checkpoint.carried:
        meta["carried"] = {who: _facts(c) for who, c in checkpoint.carried.items()}
        for who, c in checkpoint.carried.items():
            arrays[f"carried|{who}"] = np.frombuffer(c.payload, np.uint8)
    path = path_of(folder, checkpoint.round)
    archive.write(path, meta, arrays)
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
        elif kind == "institution":
            who, _, block = name.partition("|")
            institutions.setdefault(who, {})[block] = vector
    carried = {
        who: _carried(facts, arrays[f"carried|{who}"].tobytes())
        for who, facts in meta.get("carried", {}).items()
    }
    return Checkpoint(meta["round"], weights, strategy, institutions, carried)


def _facts(carried: Carried) -> dict[str, Any]:
    """Return what JSON holds of an update on its way."""
    return {"flight": asdict(carried.flight), "record": asdict(carried.record)}


def _carried(facts: dict[str, Any], payload: bytes) -> Carried:
    record = facts["record"]
    known = TrainRecord(**record | {"timing": Timing(**record["timing"])})
    return Carried(Flight(**facts["flight"]), known, payload)


def latest(folder: Path, at_most: int) -> Path | None:
    """Return the newest readable checkpoint of round `at_most` or before, or None.

    What can't be read is told of in the log: the run goes on from an earlier round.
    """
    broken = False
    for path in sorted(folder.glob("round-*.npz"), reverse=True):
        if round_of(path) > at_most:
            continue
        try:
            read(path)
        except FedfuseError as error:
            _log.warning("%s; falling back to what came before it", error)
            broken = True
            continue
        return path
    if broken:
        _log.warning("no checkpoint in %s can be read; starting again from round 1", folder)
    return None
