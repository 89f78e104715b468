"""Checkpoints: one checked file a round, whole or absent.

A round is a pure function of the checkpoint before it, so a run that is continued from one, or a
round that is tried again, gives the identical result and spends no privacy budget twice.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedfuse_ray.blocks import Blocks
from fedfuse_ray.compression.codec import Setting
from fedfuse_ray.errors import FedfuseError, InputError
from fedfuse_ray.federation.checkpoints import archive
from fedfuse_ray.federation.checkpoints.state import NoiseHistory, ServerState
from fedfuse_ray.federation.messages.records import Carried, TrainRecord
from fedfuse_ray.federation.messages.released import Released
from fedfuse_ray.federation.messages.updates import Kept, Update
from fedfuse_ray.network import Flight, Timing
from fedfuse_ray.privacy.accounting.adaptive_budget import Signal

_KEPT = 2
_FORMAT = 2
"""Of the file; 1 had the server's state in one dict of prefixes."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """All that the next round depends on.

    Attributes:
        round: The last round that is in it; 0 before the first.
        weights: The global model.
        server: The server's state; None before the first round.
        institutions: What each institution keeps, by name.
        carried: Updates on their way to an asynchronous server, by institution.
    """

    round: int
    weights: Blocks
    server: ServerState | None = None
    institutions: Mapping[str, Kept] = field(default_factory=dict)
    carried: Mapping[str, Carried[bytes]] = field(default_factory=dict)

    @property
    def model(self) -> Blocks:
        """The model that is scored and given out: the last, or an average of the last."""
        return self.weights | (self.server.average if self.server else {})


def path_of(folder: Path, round: int) -> Path:
    """Return the checkpoint file of a round."""
    return folder / f"round-{round:06d}.npz"


def round_of(path: Path) -> int:
    """Return the round of a checkpoint file, from its name."""
    return int(path.stem.removeprefix("round-"))


def clear(folder: Path) -> None:
    """Remove an older run's checkpoints, so that a resume can't pick them up."""
    for old in (*folder.glob("*.npz"), *folder.glob("survivors.json")):
        old.unlink(missing_ok=True)


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint atomically, and drop all but the newest two."""
    server = checkpoint.server or ServerState()
    groups: dict[str, Blocks] = {
        "weights": checkpoint.weights,
        "strategy": server.strategy,
        "average": server.average,
        "held": server.held,
        "tracked": server.tracked.on_wire(),
    }
    for who, kept in checkpoint.institutions.items():
        groups |= {f"controls|{who}": kept.controls, f"memory|{who}": kept.memory}
    arrays: dict[str, npt.NDArray[Any]] = {}
    for group, blocks in groups.items():
        arrays |= {f"{group}|{name}": vector for name, vector in blocks.items()}
    for who, c in checkpoint.carried.items():
        arrays[f"carried|{who}"] = np.frombuffer(c.payload, np.uint8)
    meta: dict[str, Any] = {
        "format": _FORMAT,
        "round": checkpoint.round,
        "spent": {who: kept.spent for who, kept in checkpoint.institutions.items() if kept},
        "carried": {
            who: {"flight": asdict(c.flight), "record": asdict(c.record)}
            for who, c in checkpoint.carried.items()
        },
    }
    if checkpoint.server is not None:
        meta["server"] = {
            "used": dict(server.used),
            "released": asdict(server.released),
            "noise_history": asdict(server.noise_history),
        }
    path = path_of(folder, checkpoint.round)
    archive.write(path, meta, arrays)
    for old in sorted(folder.glob("round-*.npz"))[:-_KEPT]:
        old.unlink(missing_ok=True)
    return path


def read(path: Path) -> Checkpoint:
    """Read a checkpoint; its digest is verified.

    Raises:
        FedfuseError: The file is missing, truncated or altered.
        InputError: It was written by an older version, in another form.
    """
    meta, arrays = archive.read(path)
    if meta.get("format") != _FORMAT:
        raise InputError(
            "checkpoint", path, "was written by another version of fedfuse_ray; run again"
        )
    groups: dict[str, Blocks] = {}
    kept: dict[str, dict[str, Blocks]] = {}
    for key, vector in arrays.items():
        group, _, name = key.partition("|")
        if group in ("controls", "memory"):
            who, _, name = name.partition("|")
            kept.setdefault(who, {}).setdefault(group, {})[name] = vector
        else:
            groups.setdefault(group, {})[name] = vector
    return Checkpoint(
        round=meta["round"],
        weights=groups.get("weights", {}),
        server=_server(meta["server"], groups) if "server" in meta else None,
        institutions={
            who: Kept(**kept.get(who, {}), spent=spent) for who, spent in meta["spent"].items()
        },
        carried={
            who: _carried(facts, arrays[f"carried|{who}"].tobytes())
            for who, facts in meta["carried"].items()
        },
    )


def _server(facts: dict[str, Any], groups: Mapping[str, Blocks]) -> ServerState:
    released, history = facts["released"], facts["noise_history"]
    settings = {block: Setting(**values) for block, values in released.pop("settings").items()}
    return ServerState(
        strategy=groups.get("strategy", {}),
        average=groups.get("average", {}),
        held=groups.get("held", {}),
        tracked=Update.from_wire(groups.get("tracked", {})),
        used=facts["used"],
        released=Released(**released, settings=settings),
        noise_history=NoiseHistory(
            tuple(history["spent"]), tuple(Signal(**signal) for signal in history["signals"])
        ),
    )


def _carried(facts: dict[str, Any], payload: bytes) -> Carried[bytes]:
    record = facts["record"]
    known = TrainRecord(**record | {"timing": Timing(**record["timing"])})
    return Carried(Flight(**facts["flight"]), known, payload)


def latest(folder: Path, at_most: int) -> Path | None:
    """Return the newest readable checkpoint of round `at_most` or before, or None.

    A file that can't be read is logged, and the run goes on from an earlier round.
    """
    broken = False
    for path in sorted(folder.glob("round-*.npz"), reverse=True):
        if round_of(path) > at_most:
            continue
        try:
            read(path)
        except InputError:  # nothing is broken, and what came before it is as old
            raise
        except FedfuseError as error:
            _log.warning("%s; falling back to what came before it", error)
            broken = True
            continue
        return path
    if broken:
        _log.warning("no checkpoint in %s can be read; starting again from round 1", folder)
    return None
