"""Participants that trained alone, kept as they finish, so that a resumed run trains the rest."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from fedfuse_ray.federation.metrics import Scores
from fedfuse_ray.federation.records import Alone
from fedfuse_ray.files import write_atomic


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
    arrays: dict[str, Any] = {"meta": np.frombuffer(json.dumps(meta).encode(), np.uint8)}
    for index, view in enumerate(scores.confusion):
        arrays[f"confusion|{index}"] = scores.confusion[view]
        arrays[f"attention|{index}"] = scores.attention[view]
    arrays |= {f"weights|{name}": vector for name, vector in alone.weights.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomic(_path(folder, scores.name), lambda file: file.write(buffer.getbuffer()))


def read(folder: Path, name: str) -> Alone | None:
    """Return a participant's result, or None where there is none that can be read."""
    path = _path(folder, name)
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            meta = json.loads(archive["meta"].tobytes())
            views = [tuple(view) for view in meta["views"]]
            scores = Scores(
                name=meta["name"],
                domain=meta["domain"],
                confusion={v: archive[f"confusion|{i}"] for i, v in enumerate(views)},
                attention={v: archive[f"attention|{i}"] for i, v in enumerate(views)},
                correct=meta["correct"],
                total=meta["total"],
            )
            weights = {
                key.removeprefix("weights|"): archive[key]
                for key in archive.files
                if key.startswith("weights|")
            }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
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
