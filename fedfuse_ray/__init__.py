"""Simulate privacy-preserving federated cross-modal fusion in scientific imaging, on Ray."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedfuse_ray.config import Experiment
    from fedfuse_ray.config import load as load_experiment
    from fedfuse_ray.report import read_run as load_result
    from fedfuse_ray.runs.comparing import compare
    from fedfuse_ray.runs.running import run

__all__ = ["Experiment", "compare", "load_experiment", "load_result", "run"]

_HOMES = {
    "Experiment": ("fedfuse_ray.config", "Experiment"),
    "compare": ("fedfuse_ray.runs.comparing", "compare"),
    "load_experiment": ("fedfuse_ray.config", "load"),
    "load_result": ("fedfuse_ray.report", "read_run"),
    "run": ("fedfuse_ray.runs.running", "run"),
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for: start-up counts in every Ray worker."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)
