"""Federations that are picked by hand and run as a sweep's trials: equal ones once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedfuse_ray.config import Experiment
from fedfuse_ray.studies.sweeping.points import Point, digest, slug


class Picked:
    """Points in the order in which they are first asked for."""

    def __init__(self) -> None:
        self._points: dict[str, Point] = {}

    @property
    def points(self) -> tuple[Point, ...]:
        """Every federation once."""
        return tuple(self._points.values())

    def add(self, values: Mapping[str, Any], experiment: Experiment) -> str:
        """Return the name of a federation's trial, which an equal one may have begun.

        Args:
            values: What the trial is called after, if it is a new one.
            experiment: What it runs.
        """
        # What it was read from changes no result.
        key = experiment.model_copy(update={"preset": ""}).model_dump_json()
        if key not in self._points:
            number = len(self._points)
            name = f"{number:03d}-{slug(values)}-{digest({'key': key})[:4]}"
            self._points[key] = Point(number, name, values, experiment)
        return self._points[key].name
