"""The loop over rounds: train, score, tell, checkpoint."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from fedfuse_ray.errors import BudgetSpentError, SurvivorsChangedError
from fedfuse_ray.federation.checkpoints import promise
from fedfuse_ray.federation.messages.metrics import Scores, View
from fedfuse_ray.federation.modes.outcome import Attendance, RoundOutcome
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.rounds.executor import Executor
from fedfuse_ray.federation.rounds.timeline import attend

_MOST_FOR_ALL_SUBSETS = 4
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clock:
    """The virtual clock between two rounds.

    Attributes:
        now: Simulated seconds since the run began.
        missed: Whom the last broadcast has not reached.
    """

    now: float = 0.0
    missed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Round:
    """A finished round.

    Attributes:
        number: From 1.
        outcome: Training and aggregation.
        scores: Each participant's counts; None where the round was not evaluated.
        evaluate_seconds: Wall time of scoring.
        seconds: Wall time of it all, without the checkpoint.
    """

    number: int
    outcome: RoundOutcome
    scores: list[Scores] | None
    evaluate_seconds: float
    seconds: float


def run_rounds(
    plan: Plan,
    executor: Executor,
    first: int,
    checkpoints: Path,
    charge: Callable[[int], None],
    clock: Clock,
) -> Iterator[Round]:
    """Run rounds up to the last, and checkpoint each after the caller has seen it.

    A spent budget ends the rounds; what was trained so far is kept.

    Args:
        plan: The federation's plan.
        executor: Started and loaded with the state after round `first - 1`.
        first: The first round to run.
        checkpoints: Where checkpoints go.
        charge: Called before each round; raises `BudgetSpentError` where it must not happen.
        clock: The virtual clock after round `first - 1`.
    """
    experiment = plan.experiment
    last = experiment.training.rounds
    for number in range(first, last + 1):
        began = time.perf_counter()
        attendance = attend(plan, number, clock.now, clock.missed)
        try:
            outcome = _charged(number, attendance, executor, charge, checkpoints)
        except BudgetSpentError:
            return
        for who, reason in outcome.aggregation.refused:
            _log.warning("round %d: what %s sent was refused: %s", number, who, reason)
        missed = tuple(name for name in plan.by_name if name not in outcome.fetched)
        clock = Clock(outcome.simulated_start + outcome.simulated_seconds, missed)
        trained = time.perf_counter()
        scores = None
        if number == last or number % experiment.execution.evaluate_every == 0:
            scores = executor.evaluate(number, round_views(plan))
        ended = time.perf_counter()
        yield Round(number, outcome, scores, ended - trained, ended - began)
        executor.save(checkpoints)


def _charged(
    number: int,
    attendance: Attendance,
    executor: Executor,
    charge: Callable[[int], None],
    checkpoints: Path,
) -> RoundOutcome:
    """Charge a round, then run it; with noise drawn anew, and charged again, as often as needed."""
    epoch = promise.read(checkpoints).epochs.get(number, 0)
    for _ in range(epoch + 1):
        charge(number)
    while True:
        try:
            return executor.train(number, attendance, epoch)
        except SurvivorsChangedError as error:
            _log.warning("round %d: %s; its noise is drawn anew, and charged again", number, error)
            epoch += 1
            charge(number)


def round_views(plan: Plan) -> dict[str, tuple[View, ...]]:
    """Return what every round is scored on: all modalities, or each alone without fusion."""
    if plan.spec.config.fusion == "none":
        return {d: tuple((m,) for m in ms) for d, ms in plan.spec.domains.items()}
    return {domain: (modalities,) for domain, modalities in plan.spec.domains.items()}


def final_views(plan: Plan) -> dict[str, tuple[View, ...]]:
    """Return what the final model is scored on: every subset of a domain's modalities.

    With more than four modalities only single ones, what institutions own, and all. A model
    without fusion is shown one modality at a time.
    """
    views: dict[str, tuple[View, ...]] = {}
    for domain, modalities in plan.spec.domains.items():
        wanted: dict[View, None] = dict.fromkeys((m,) for m in modalities)
        if plan.spec.config.fusion != "none":
            if len(modalities) <= _MOST_FOR_ALL_SUBSETS:
                for size in range(2, len(modalities) + 1):
                    wanted |= dict.fromkeys(combinations(modalities, size))
            owned = [p.modalities for p in plan.participants if p.domain == domain]
            wanted |= dict.fromkeys([*owned, modalities])
        views[domain] = tuple(wanted)
    return views
