"""Experiment trackers that a sweep may tell of its trials, and the extras that it needs.

Nothing leaves this machine unless the sweep file says so: without an address MLflow writes into the
sweep's own folder, and Weights & Biases is offline.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fedfuse_ray.config.settings.base import Config
from fedfuse_ray.errors import InputError

if TYPE_CHECKING:
    from fedfuse_ray.studies.sweeping.config import Sweep

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "DO_NOT_TRACK": "1",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",
}
"""Turns off what the trackers would report home of their own use, and most of what they print."""


class MlflowTracking(Config):
    """A run in MLflow for each trial.

    Attributes:
        uri: Of a server or a store; null writes `mlflow.db` into the sweep's folder.
        experiment: Its name in MLflow; null takes the sweep folder's.
        tags: Put on every run.
    """

    uri: str | None = Field(None, min_length=1)
    experiment: str | None = Field(None, min_length=1)
    tags: dict[str, str] = Field({})

    def address(self, folder: Path) -> str:
        """Return where runs are written, for a sweep in `folder`."""
        return self.uri or f"sqlite:///{folder.absolute() / 'mlflow.db'}"


class WandbTracking(Config):
    """A run in Weights & Biases for each trial, kept below `wandb/` of the sweep's folder.

    Attributes:
        project: Its name there.
        entity: The user or team; null takes the account's own.
        group: What gathers the trials; null takes the sweep folder's name.
        mode: `offline` writes files alone; `online` also sends them.
    """

    project: str = Field("fedfuse_ray", min_length=1)
    entity: str | None = Field(None, min_length=1)
    group: str | None = Field(None, min_length=1)
    mode: Literal["offline", "online"] = "offline"


class Tracking(Config):
    """Who is told; null is not."""

    mlflow: MlflowTracking | None = None
    wandb: WandbTracking | None = None


def check_extras(sweep: Sweep) -> None:
    """Check that what the search and the trackers need is installed.

    Raises:
        InputError: It is not.
    """
    if sweep.search.kind == "optuna" and not _installed("optuna"):
        remedy = "needs Optuna: pip install 'fedfuse-ray[optuna]'; or choose random or asha"
        raise InputError("search.kind", "optuna", remedy)
    for name, asked in (("mlflow", sweep.tracking.mlflow), ("wandb", sweep.tracking.wandb)):
        if asked is not None and not _installed(name):
            remedy = f"is not installed: pip install 'fedfuse-ray[{name}]'; or leave it out"
            raise InputError(f"tracking.{name}", name, remedy)


def keep_quiet(tracking: Tracking) -> None:
    """Turn off the trackers' own telemetry, here and in processes that a local Ray starts."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if tracking.wandb is not None:
        # Decides, before any run, whether an account is needed.
        os.environ["WANDB_MODE"] = tracking.wandb.mode


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
