"""From a sweep to its points: the settings of each trial, named, in an order that never changes."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from fedfuse_ray import rng
from fedfuse_ray.config import Experiment, load
from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.plan import feasibility, paradigms
from fedfuse_ray.studies.sweeping.config import Axis, OptunaSearch, RandomSearch, Sweep
from fedfuse_ray.studies.sweeping.number import draw_number
from fedfuse_ray.yaml12 import write

_LONGEST_NAME = 80
_PROBES = 16
_UNPRINTABLE = re.compile(r"[^A-Za-z0-9.+-]+")


@dataclass(frozen=True)
class Point:
    """One trial to be: its place in the sweep, from 0, its folder's name, its dotted settings."""

    index: int
    name: str
    values: Mapping[str, object]
    experiment: Experiment


def expand(sweep: Sweep) -> list[Point]:
    """Return all points of a sweep, each validated; none for `optuna`, which proposes its own.

    Of `optuna`'s space, every listed value and bound is tried in some combination instead.

    Raises:
        InputError: A point that no federation could run; the message names the point.
    """
    if isinstance(sweep.search, OptunaSearch):
        for values in _corners(sweep.space):
            experiment_of(sweep, values)
        return []
    drawn = list(_values(sweep))
    digits = max(2, len(str(len(drawn) - 1)))
    return [
        Point(i, f"{i:0{digits}d}-{slug(values)}", values, experiment_of(sweep, values))
        for i, values in enumerate(drawn)
    ]


def check_scores(sweep: Sweep, points: Iterable[Point]) -> None:
    """Refuse points without the scores that the search looks at, before any of them is run.

    Raises:
        InputError: A point has no accuracy that may be shown in time.
    """
    # Many points have one manifest, which need not be read for each.
    kinds = {}
    for point in points:
        e = point.experiment
        kinds[e.data.model_dump_json(), e.privacy.mode, e.privacy.scores] = point
    for point in kinds.values():
        feasibility.check_scores(
            paradigms.resolve(point.experiment), each_round=sweep.search.kind == "asha"
        )


def experiment_of(sweep: Sweep, values: Mapping[str, object]) -> Experiment:
    """Return the experiment at a point.

    Raises:
        InputError: The settings don't go together.
    """
    settings = [
        f"{name}={write(v, on_one_line=True)}" for name, v in {**sweep.settings, **values}.items()
    ]
    try:
        asked = load(sweep.base, settings, paradigm=sweep.paradigm)
        set_here = "executor" in asked.execution.model_fields_set
        if set_here and asked.execution.executor != sweep.executor:
            raise InputError(
                "execution.executor",
                asked.execution.executor,
                "say `executor` of the sweep instead; it holds for all trials",
            )
        settings.append(f"execution.executor={sweep.executor}")
        return load(sweep.base, settings, paradigm=sweep.paradigm)
    except InputError as error:
        at = ", ".join(f"{name}={value}" for name, value in values.items())
        raise InputError(error.field, error.value, f"{error.remedy} (at {at})") from None


def slug(values: Mapping[str, object]) -> str:
    """Return a point's values as a name for files: the last part of each setting, and its value.

    >>> slug({"privacy.clip_norm": 0.5, "seed": 2})
    'clip_norm-0.5-seed-2'
    """
    parts = [f"{name.rpartition('.')[2]}-{_brief(value)}" for name, value in values.items()]
    return _UNPRINTABLE.sub("_", "-".join(parts))[:_LONGEST_NAME].strip("-_.") or "point"


def value_text(value: object) -> str:
    """Return a setting's value as a reader wants it; a group as its settings in a row."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {value_text(one)}" for name, one in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    if value is None:
        return "none"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def digest(values: Mapping[str, object]) -> str:
    """Return eight characters that tell a point from others."""
    return hashlib.blake2b(json.dumps(dict(values)).encode(), digest_size=4).hexdigest()


def _values(sweep: Sweep) -> Iterable[dict[str, object]]:
    names, axes = list(sweep.space), list(sweep.space.values())
    if sweep.search.kind == "grid":
        for combination in itertools.product(*(axis.values for axis in axes)):
            yield dict(zip(names, combination, strict=True))
        return
    count = sweep.search.trials
    if isinstance(sweep.search, RandomSearch):
        stream = rng.generator(sweep.search.seed, "sweep number")
        count = draw_number(sweep.search.number, count, stream)
    for index in range(count):
        stream = rng.generator(sweep.search.seed, "sweep point", index)
        yield {name: _draw(axis, stream) for name, axis in zip(names, axes, strict=True)}


def _draw(axis: Axis, stream: np.random.Generator) -> object:
    if axis.values:
        return axis.values[int(stream.integers(len(axis.values)))]
    low, high = axis.bounds
    if axis.kind == "uniform":
        return float(stream.uniform(low, high))
    return math.exp(stream.uniform(math.log(low), math.log(high)))


def _corners(space: Mapping[str, Axis]) -> Iterable[dict[str, object]]:
    options = {name: axis.values or axis.bounds for name, axis in space.items()}
    for index in range(max(_PROBES, *(len(o) for o in options.values()))):
        yield {
            name: o[(index // (place + 1)) % len(o)]
            for place, (name, o) in enumerate(options.items())
        }


def _brief(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return "-".join(map(_brief, value.values()))
    if isinstance(value, list | tuple):
        return "-".join(map(_brief, value))
    return str(value)
