"""Participants that trained alone, kept as they finish, so that a resumed run trains the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedfuse_ray import blocks
from fedfuse_ray.errors import FedfuseError
from fedfuse_ray.federation.checkpoints import archive
from fedfuse_ray.federation.checkpoints import checkpoint as checkpoints
from fedfuse_ray.federation.messages.metrics import Scores
from fedfuse_ray.federation.messages.records import Alone


def save(folder: Path, alone: Alone) -> None:
    """Write one participant's result, atomically."""
    scores = alone.scores
    meta = {
        "name": scores.name,
        "domain": scores.domain,
        "views": [list(view) for view in scores.confusion],
        "correct": scores.correct,
        "total": scores.total,
        "losses": alone.losses,
        "validation": alone.validation,
        "best_epoch": alone.best_epoch,
        "seconds": alone.seconds,
    }
    arrays: dict[str, Any] = {}
    for index, view in enumerate(scores.confusion):
        arrays[f"confusion|{index}"] = scores.confusion[view]
        arrays[f"attention|{index}"] = scores.attention[view]
    arrays |= {f"weights|{name}": vector for name, vector in alone.weights.items()}
    archive.write(_path(folder, scores.name), meta, arrays)


def read(folder: Path, name: str) -> Alone | None:
    """Return a participant's result, or None where there is none that can be read."""
    try:
        meta, arrays = archive.read(_path(folder, name))
    except FedfuseError:
        return None
    views = [tuple(view) for view in meta["views"]]
    scores = Scores(
        name=meta["name"],
        domain=meta["domain"],
        confusion={v: arrays[f"confusion|{i}"] for i, v in enumerate(views)},
        attention={v: arrays[f"attention|{i}"] for i, v in enumerate(views)},
        correct=meta["correct"],
        total=meta["total"],
    )
    weights = {
        key.removeprefix("weights|"): vector
        for key, vector in arrays.items()
        if key.startswith("weights|")
    }
    return Alone(
        scores=scores,
        losses=tuple(meta["losses"]),
        validation=tuple(meta["validation"]),
        best_epoch=meta["best_epoch"],
        weights=weights,
        seconds=meta["seconds"],
    )


def _path(folder: Path, name: str) -> Path:
    return folder / f"alone-{name}.npz"


def sha256_of(folder: Path, rounds: int) -> str | None:
    """Return the digest of the model in a run's checkpoints; None where it was not kept.

    Args:
        folder: The run's checkpoints.
        rounds: The last round, where there was a federation.
    """
    apart = {name: vector for path in folder.glob("alone-*.npz") for name, vector in _model(path)}
    if apart:
        return blocks.sha256(apart)
    path = checkpoints.path_of(folder, rounds)
    return blocks.sha256(checkpoints.read(path).model) if path.is_file() else None


def _model(path: Path) -> Iterator[tuple[str, blocks.Vector]]:
    meta, arrays = archive.read(path)
    for key, vector in arrays.items():
        kind, _, block = key.partition("|")
        if kind == "weights":
            yield f"{meta['name']}|{block}", vector
