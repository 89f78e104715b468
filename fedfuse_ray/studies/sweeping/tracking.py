"""The extras that a sweep needs, and how trackers are kept from reporting home.

Nothing leaves this machine unless the sweep file says so: without an address MLflow writes into the
sweep's own folder, and Weights & Biases is offline.
"""

from __future__ import annotations

import importlib.util
import os

from fedfuse_ray.errors import InputError
from fedfuse_ray.studies.sweeping.config import Sweep, Tracking

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "DO_NOT_TRACK": "1",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",
}
"""Turns off what the trackers would report home of their own use, and most of what they print."""


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
