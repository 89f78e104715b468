"""Trials that a search proposes one by one, and what Tune knows a trial by.

Tune's config of a trial is `{FOLDER: path}`, or where Optuna proposes it `{ROOT: path, setting:
value, ...}` with listed values as JSON.
"""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedfuse_ray.studies.sweeping.config import Objective, OptunaSearch, Sweep
from fedfuse_ray.studies.sweeping.points import digest, experiment_of, slug
from fedfuse_ray.studies.sweeping.store import SweepStore, lay_out

FOLDER, ROOT = "folder", "sweep folder"


def algorithm(sweep: Sweep, store: SweepStore, names: Sequence[str]) -> Any:
    """Return the search that proposes trials; None where all are laid out beforehand.

    Args:
        sweep: The sweep.
        store: Its folder.
        names: Trials that an earlier sweep proposed, which are told to the search first.
    """
    if not isinstance(sweep.search, OptunaSearch):
        return None
    distributions = importlib.import_module("optuna.distributions")
    importlib.import_module("optuna.logging").set_verbosity(logging.WARNING)
    from ray.tune.search.optuna import OptunaSearch as TuneOptuna

    space: dict[str, Any] = {ROOT: distributions.CategoricalDistribution((str(store.folder),))}
    for name, axis in sweep.space.items():
        if axis.values:
            texts = [json.dumps(value) for value in axis.values]
            space[name] = distributions.CategoricalDistribution(texts)
        else:
            log = axis.kind == "loguniform"
            space[name] = distributions.FloatDistribution(*axis.bounds, log=log)
    earlier = [
        {ROOT: str(store.folder)}
        | {n: json.dumps(v) if sweep.space[n].values else v for n, v in store.values(name).items()}
        for name in names
    ]
    return TuneOptuna(
        space=space,
        metric=list(sweep.objectives),
        mode=[_mode(objective) for objective in sweep.objectives],
        points_to_evaluate=earlier or None,
        # A search that goes on would otherwise draw its first points once more.
        seed=sweep.search.seed + len(names),
    )


def _mode(objective: Objective) -> str:
    return "max" if objective == "accuracy" else "min"


def named(sweep: Sweep, store: SweepStore, config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name and the settings of a trial that Tune knows by its config."""
    if FOLDER in config:
        name = Path(config[FOLDER]).name
        return name, store.values(name)
    values = {
        name: json.loads(config[name]) if axis.values else float(config[name])
        for name, axis in sweep.space.items()
    }
    return f"{slug(values)}-{digest(values)}", values


def proposed(config: Mapping[str, Any]) -> Path:
    """Lay out a trial that the search has proposed; one proposed before is found again."""
    store = SweepStore(Path(config[ROOT]))
    sweep = store.read()
    name, values = named(sweep, store, config)
    folder = store.trials / name
    if not (folder / "trial.json").is_file():
        index = len(store.names())
        lay_out(folder, index, values, experiment_of(sweep, values))
    return folder
