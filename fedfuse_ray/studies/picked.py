"""Studies of federations that are picked by hand: laid out, run and continued as a sweep's trials.

Equal federations run once. What a study found is one JSON file beside its runs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

from fedfuse_ray.config import Experiment
from fedfuse_ray.config.settings.base import Config
from fedfuse_ray.files import write_json
from fedfuse_ray.report.reading import read_model
from fedfuse_ray.studies.sweeping.driving import drive
from fedfuse_ray.studies.sweeping.live import LiveTable
from fedfuse_ray.studies.sweeping.loading import validate_sweep
from fedfuse_ray.studies.sweeping.points import Point, digest, slug
from fedfuse_ray.studies.sweeping.store import SweepStore


class Picked:
    """Points in the order in which they are first asked for."""

    def __init__(self) -> None:
        self._points: dict[str, Point] = {}

    @property
    def points(self) -> tuple[Point, ...]:
        """Every federation once."""
        return tuple(self._points.values())

    def add(self, values: Mapping[str, object], experiment: Experiment) -> str:
        """Return the name of a federation's trial, which an equal one may have begun.

        A new one is called after `values`.
        """
        # What it was read from changes no result.
        key = experiment.model_copy(update={"preset": ""}).model_dump_json()
        if key not in self._points:
            number = len(self._points)
            name = f"{number:03d}-{slug(values)}-{digest({'key': key})[:4]}"
            self._points[key] = Point(number, name, values, experiment)
        return self._points[key].name


class Findings(Config):
    """What a study found, as the file `FILE` in its folder."""

    FILE: ClassVar[str]

    def write(self, folder: Path) -> None:
        """Write the file."""
        write_json(folder / self.FILE, self.model_dump(mode="json"))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file of this kind.

        Raises:
            InputError: It is missing or broken.
        """
        return read_model(path, cls)


def lay_out(
    folder: Path,
    base: str,
    settings: Mapping[str, object],
    space: Mapping[str, Sequence[str]],
    points: Sequence[Point],
) -> None:
    """Begin a study's folder; an older study in it is replaced.

    `settings` are what the study was asked for, to be read back when it is continued; `space` tells
    readers what its federations differ in.

    Raises:
        InputError: The folder holds other files.
    """
    tree = {"base": base, "settings": settings, "space": {n: list(v) for n, v in space.items()}}
    SweepStore(folder).start(validate_sweep(tree), points)


def run_missing(store: SweepStore, live: LiveTable, among: Collection[str]) -> list[str]:
    """Run those of some federations that have no result; returns their names.

    Raises:
        ResourceError: No node has room for a federation.
    """
    names = [name for name in store.missing() if name in among]
    if names:
        drive(store.read(), store, names, live)
    return names
