"""Trials on Ray Tune: one process runs trial after trial, as many processes as there is room for.

Tune decides which trial runs where and, for the searches that learn, which comes next; what a trial
is, and how it is continued, is `trial`'s, so that a sweep outlives Tune's own state.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import tune

from actors.cluster import connect
from actors.metrics import RayMetrics
from actors.ray_executor import RayExecutor
from fedfuse_ray.config import ExecutionConfig, Experiment
from fedfuse_ray.runs.progress import Progress, Silent
from fedfuse_ray.studies.sweeping.config import AshaSearch, OptunaSearch, Sweep, Tracking
from fedfuse_ray.studies.sweeping.on_ray import proposing, room
from fedfuse_ray.studies.sweeping.on_ray.proposing import FOLDER, named, proposed
from fedfuse_ray.studies.sweeping.on_ray.tracking import reporters
from fedfuse_ray.studies.sweeping.store import (
    MISSING,
    REFUSED,
    Row,
    SweepStore,
    metrics_of,
    read_progress,
    read_row,
)
from fedfuse_ray.studies.sweeping.trial import Step, Trial

if TYPE_CHECKING:
    from fedfuse_ray.federation.rounds.executor import Executor
    from fedfuse_ray.studies.sweeping.on_ray.reuse import ReusingExecutor

_TUNE = "tune"
_RETRIES = 2
_WORST = 1e9
"""Stands for an epsilon that is not finite, and for bytes that were never counted."""


@dataclass(frozen=True)
class TrialState:
    """What is known of a trial while the sweep goes on."""

    name: str
    round: int
    total: int
    accuracy: float | None
    ended: bool


class FederationTrial(tune.Trainable):  # type: ignore[misc]
    """A process of the sweep: runs one trial after the other, and keeps what they share.

    Under `executor: ray` it only drives: the federation's actors stand beside it, in the trial's
    placement group, and end with the trial.
    """

    _reusing: ReusingExecutor
    _folder: Path
    _last: Step
    _tracked: bool
    _trial: Trial

    def setup(self, config: dict[str, Any]) -> None:
        """Begin the first trial."""
        from fedfuse_ray.studies.sweeping.on_ray.reuse import (
            ReusingExecutor,  # torch; the driver does without
        )

        self._reusing = ReusingExecutor()
        self._begin(config)
        sweep = SweepStore(self._folder.parent.parent).read()
        self._tracked = sweep.tracking != Tracking()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin the next trial in the same process."""
        self._trial.stop()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Run a round of the trial."""
        result = self._trial.step()
        if isinstance(result, Step):
            self._last = result
            # Only trackers look at more than the accuracy before a trial's end.
            metrics = metrics_of(read_progress(self._folder, result.round)) if self._tracked else {}
            ended: dict[str, Any] = {"done": False}
        else:
            row = read_row(self._folder)
            if result.status == REFUSED:  # a search that learns is told the worst
                row = replace(row, status=REFUSED)
            metrics = metrics_of(row)
            ended = {"done": True, **measured(row), "status": row.status}
        report = {
            "name": self._folder.name,
            "round": self._last.round,
            "total": self._last.total,
            # Tune wants a number; what is not known yet is shown to nobody.
            "accuracy": self._last.accuracy or 0.0,
            "scored": self._last.accuracy is not None,
            "metrics": metrics,
        }
        return report | ended

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Save nothing: the trial's folder has a checkpoint of every round."""
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Load nothing: a trial continues from its folder."""

    def cleanup(self) -> None:
        """Leave the trial's folder alone."""
        self._trial.stop()

    def _begin(self, config: Mapping[str, Any]) -> None:
        self._folder = Path(config[FOLDER]) if FOLDER in config else proposed(config)
        self._last = Step(0, 0, None)
        self._trial = Trial(self._folder, self._executor_of, self._metrics_of)

    def _executor_of(self, experiment: Experiment) -> Executor:
        if experiment.execution.executor == "serial":
            return self._reusing
        return RayExecutor(experiment.execution, ray.util.get_current_placement_group())

    def _metrics_of(self, experiment: Experiment) -> Progress:
        if experiment.execution.executor == "ray":
            return Silent()  # its run has metrics of its own
        return RayMetrics(experiment, self._folder.parent.parent.name, self._folder.name)


class _Watcher(tune.Callback):  # type: ignore[misc]
    """Passes on what Tune hears of trials."""

    def __init__(self, tell: Callable[[TrialState], None]) -> None:
        self._tell = tell

    def __reduce__(self) -> tuple[Any, ...]:
        # Tune saves its callbacks for a restore of its own, which is never asked for.
        return _Watcher, (_tell_nobody,)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A round is done, or the trial is."""
        self._tell(_state(result, ended=bool(result["done"])))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has ended, of itself or stopped by the search."""
        result = trial.last_result or {}
        if "name" in result:
            self._tell(_state(result, ended=True))


def _state(result: Mapping[str, Any], *, ended: bool) -> TrialState:
    accuracy = result["accuracy"] if result["scored"] else None
    return TrialState(result["name"], result["round"], result["total"], accuracy, ended=ended)


def run_trials(
    sweep: Sweep, store: SweepStore, names: Sequence[str], tell: Callable[[TrialState], None]
) -> None:
    """Run trials to their end, and tell here how they advance; their results are in their folders.

    Under `optuna` the names are those that an earlier sweep proposed, which are told to the search
    before it goes on.

    Raises:
        ResourceError: No node has room for a trial.
    """
    _keep_tune_quiet()
    search = proposing.algorithm(sweep, store, names)
    earlier = set(names) - set(store.missing())
    trackers = reporters(sweep, store, lambda config: named(sweep, store, config), earlier)
    connect(ExecutionConfig(), {"search": sweep.search.kind, "results": str(store.folder)})
    resources = room.of_a_trial(sweep, store, names)
    shutil.rmtree(store.folder / _TUNE, ignore_errors=True)
    folders = [str(store.trials / name) for name in names]
    tuner = tune.Tuner(
        tune.with_resources(FederationTrial, resources),
        param_space={} if search else {FOLDER: tune.grid_search(folders)},
        tune_config=tune.TuneConfig(
            num_samples=sweep.search.trials if isinstance(sweep.search, OptunaSearch) else 1,
            max_concurrent_trials=sweep.concurrent,
            reuse_actors=True,
            scheduler=_scheduler(sweep),
            search_alg=search,
        ),
        run_config=tune.RunConfig(
            name=_TUNE,
            storage_path=str(store.folder),
            verbose=0,
            callbacks=[_Watcher(tell), *trackers],
            # A process that died is replaced, and continues its trial; an error of the federation
            # itself is an outcome, and never tried again.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=_RETRIES),
        ),
    )
    tuner.fit()
    shutil.rmtree(store.folder / _TUNE, ignore_errors=True)


def _keep_tune_quiet() -> None:
    # Tune's own tables and per-trial logs would only say again what the trials' folders hold.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    # Only a trial's last report has all objectives.
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
    # It misses the very logs that are turned off above.
    logging.getLogger("ray.tune").setLevel(logging.ERROR)


def _tell_nobody(state: TrialState) -> None:
    """Do nothing."""


def disconnect() -> None:
    """Leave Ray, and end it where this process started it."""
    ray.shutdown()


def measured(row: Row) -> dict[str, float]:
    """Return a trial's objectives as finite numbers, worst where a trial did not come to one."""
    epsilon = math.inf if row.epsilon is None else row.epsilon
    values = {
        "accuracy": 0.0 if row.accuracy is None else row.accuracy,
        "epsilon": min(epsilon, _WORST),
        "bytes": _WORST if row.uplink_bytes is None else row.uplink_bytes,
    }
    return values if row.status != MISSING else {}


def _scheduler(sweep: Sweep) -> Any:
    if not isinstance(sweep.search, AshaSearch):
        return None
    return tune.schedulers.ASHAScheduler(
        time_attr="round",
        metric="accuracy",
        mode="max",
        grace_period=sweep.search.grace_rounds,
        reduction_factor=sweep.search.reduction_factor,
        max_t=1_000_000_000,
    )
