"""Trials as MLflow and Weights & Biases see them, through Ray's own integrations."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from ray import tune

from fedfuse_ray.errors import InputError
from fedfuse_ray.studies.sweeping.config import MlflowTracking, Sweep, WandbTracking
from fedfuse_ray.studies.sweeping.store import FAILED, SweepStore
from fedfuse_ray.studies.sweeping.tracking import keep_quiet

Naming = Callable[[Mapping[str, Any]], tuple[str, Mapping[str, Any]]]
"""From what Tune knows of a trial to the trial's name and its settings."""

_LOG = logging.getLogger("fedfuse_ray.studies.sweeping")


@dataclass(frozen=True)
class _Shown:
    """A trial, as far as a tracker may see it; Ray's integrations read these fields of Tune's."""

    trial_id: str
    name: str = field(compare=False)
    config: dict[str, Any] = field(compare=False)
    local_path: str = field(compare=False)
    experiment_dir_name: str = field(compare=False)

    def __str__(self) -> str:
        return self.name


class Reporter(tune.Callback):  # type: ignore[misc]
    """Tells a tracker of trials: their names, settings and metrics, not of this machine.

    A tracker that fails halfway is left alone from then on: the results are in the trials' folders,
    and a sweep of many hours is worth more than its diary.

    Args:
        tracker: Ray's integration, set up already.
        store: The sweep's folder.
        naming: Names trials.
        earlier: Trials that an earlier run of the sweep has told of.
    """

    def __init__(
        self, tracker: Any, store: SweepStore, naming: Naming, earlier: Collection[str]
    ) -> None:
        self._tracker, self._store, self._naming, self._earlier = tracker, store, naming, earlier
        self._works = True

    def __reduce__(self) -> tuple[Any, ...]:
        # Tune saves its callbacks for a restore of its own, which is never asked for.
        return tune.Callback, ()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial begins, or goes on in another process."""
        self._tell(trial, lambda shown: self._tracker.log_trial_start(shown))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A round is done, or the trial is."""
        number = result["round"]
        told = {"round": number, "training_iteration": number, **result["metrics"]}
        self._tell(trial, lambda shown: self._tracker.log_trial_result(number, shown, told))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has ended, of itself or stopped by the search."""
        failed = (trial.last_result or {}).get("status") == FAILED
        self._tell(trial, lambda shown: self._tracker.log_trial_end(shown, failed=failed))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process has died too often."""
        self._tell(trial, lambda shown: self._tracker.log_trial_end(shown, failed=True))

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Let the tracker finish its files."""
        if self._works:
            self._tracker.on_experiment_end([])

    def _tell(self, trial: Any, act: Callable[[_Shown], None]) -> None:
        name, settings = self._naming(trial.config)
        if name in self._earlier or not self._works:
            return
        folder = self._store.trials / name
        folder.mkdir(exist_ok=True)  # under optuna the trial's process lays it out, a moment later
        sweep = self._store.folder.name
        try:
            act(_Shown(trial.trial_id, name, dict(settings), str(folder), sweep))
        except Exception as error:
            self._works = False
            kind = type(self._tracker).__name__
            _LOG.warning("%s has failed and is told no more: %s", kind, error)


def reporters(
    sweep: Sweep, store: SweepStore, naming: Naming, earlier: Collection[str]
) -> list[Reporter]:
    """Set up the trackers that a sweep asks for; needs no Ray instance.

    Raises:
        InputError: A tracker can't be reached, or wants an account.
    """
    keep_quiet(sweep.tracking)
    trackers = []
    if (mlflow := sweep.tracking.mlflow) is not None:
        told = ("mlflow.uri", mlflow.address(store.folder))
        trackers.append(_ready(*told, lambda: TRACKERS["mlflow"](mlflow, store)))
    if (wandb := sweep.tracking.wandb) is not None:
        trackers.append(_ready("wandb.mode", wandb.mode, lambda: TRACKERS["wandb"](wandb, store)))
    return [Reporter(tracker, store, naming, earlier) for tracker in trackers]


def _ready(field: str, value: str, make: Callable[[], Any]) -> Any:
    try:
        tracker = make()
        tracker.setup()
    except Exception as error:
        said = " ".join(str(error).split())
        raise InputError(f"tracking.{field}", value, f"can't be used: {said}") from error
    return tracker


def _mlflow(asked: MlflowTracking, store: SweepStore) -> Any:
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    return MLflowLoggerCallback(
        asked.address(store.folder),
        experiment_name=asked.experiment or store.folder.name,
        tags=dict(asked.tags),
    )


def _wandb(asked: WandbTracking, store: SweepStore) -> Any:
    from ray.air.integrations.wandb import WandbLoggerCallback

    return WandbLoggerCallback(
        project=asked.project,
        group=asked.group,
        entity=asked.entity,
        mode=asked.mode,
        dir=str(store.folder),
    )


TRACKERS: dict[str, Callable[[Any, SweepStore], Any]] = {"mlflow": _mlflow, "wandb": _wandb}
"""From a tracker's name in the sweep file to what makes Ray's integration of it."""
