"""A federation's rounds, from a fresh start or from the last checkpoint, to its summary."""

from __future__ import annotations

from pathlib import Path

from fedfuse_ray.errors import BudgetSpentError
from fedfuse_ray.federation.checkpoints import checkpoint as checkpoints
from fedfuse_ray.federation.plan.patient_warning import patient_warning
from fedfuse_ray.federation.rounds.charging import Charging
from fedfuse_ray.federation.rounds.loop import Clock, final_views, run_rounds
from fedfuse_ray.federation.rounds.scoring import final_scores
from fedfuse_ray.privacy.accounting.ledger import read_ledger
from fedfuse_ray.report import RunStore, Summary
from fedfuse_ray.runs.evaluation import evaluation
from fedfuse_ray.runs.ongoing import Ongoing
from fedfuse_ray.runs.rows import round_rows
from fedfuse_ray.runs.sealing import LEDGER
from fedfuse_ray.runs.summary import fp32_uplink_bytes, privacy_summary, summarise


def train_federation(ongoing: Ongoing, *, resume: bool) -> Summary:
    """Run the rounds that are left, after the folder's last checkpoint if that is resumed.

    Raises:
        BudgetSpentError: The privacy budget does not allow a single round.
    """
    path = _last_checkpoint(ongoing) if resume else None
    done = checkpoints.round_of(path) if path else 0
    rescored = False
    if resume:
        known = read_ledger(ongoing.store.path(LEDGER))
        rescored = any(event.records and event.round > done for event in known)
        ongoing.progress.stage(f"Continuing after round {done}")
        ongoing.seal.rewind(done)
        ongoing.store.truncate(done)
    ongoing.executor.load(path, ongoing.checkpoints)
    earlier = read_ledger(ongoing.store.path(LEDGER)) if resume else None
    ongoing.entry.continues(earlier or ())
    charging = Charging.open(ongoing.plan, earlier, rescored=rescored)
    done = _train(ongoing, charging, done)
    return _conclude(ongoing, charging, done)


def _last_checkpoint(ongoing: Ongoing) -> Path | None:
    # A checkpoint of a round that the tables do not hold would leave a gap in them.
    most = min(ongoing.plan.experiment.training.rounds, ongoing.store.last_round)
    return checkpoints.latest(ongoing.checkpoints, most)


def _train(ongoing: Ongoing, charging: Charging, done: int) -> int:
    """Run the rounds after round `done`; returns the last one."""
    plan, executor = ongoing.plan, ongoing.executor
    total = plan.experiment.training.rounds
    adaptive = plan.privacy is not None and plan.privacy.spends_adaptively

    def charge(number: int) -> None:
        factor = executor.noise_factor() if adaptive else 1.0
        before = charging.account
        events = charging.charge(number, factor)
        try:
            ongoing.entry.charge(events)
        except BudgetSpentError:
            charging.account = before
            raise
        ongoing.seal.append(events)

    ongoing.progress.stage(f"Training {total} rounds")
    clock = _clock(ongoing.store) if done else Clock()
    for finished in run_rounds(plan, executor, done + 1, ongoing.checkpoints, charge, clock):
        done = finished.number
        rows = round_rows(plan, finished, charging.epsilon, charging.epsilons)
        ongoing.store.append_round(*rows, finished.outcome.aggregation.refused)
        ongoing.progress.advanced(done, total, "round", rows)
    if done < total:
        ongoing.progress.stage(f"The privacy budget is spent after {done} of {total} rounds")
    if not done:
        raise BudgetSpentError("the privacy budget does not allow a single round; grant more")
    return done


def _conclude(ongoing: Ongoing, charging: Charging, done: int) -> Summary:
    plan, executor = ongoing.plan, ongoing.executor
    digest = executor.sha256()
    fp32_bytes = fp32_uplink_bytes(plan, executor.block_sizes())
    total = plan.experiment.training.rounds
    ongoing.seal.append(charging.charge_scores(done))
    scores = final_scores(plan, executor.evaluate(total, final_views(plan)))
    ongoing.store.write_evaluation(evaluation(plan, scores))
    summary = summarise(plan, scores, ongoing.store.tables(), digest, fp32_bytes)
    released = charging.account.ledger if charging.account is not None else ()
    warning = patient_warning(plan, ongoing.dataset, released)
    guarantee = privacy_summary(plan, charging.epsilon, charging.epsilons, done, warning)
    return ongoing.finish(summary.model_copy(update={"privacy": guarantee}))


def _clock(store: RunStore) -> Clock:
    """Return the virtual clock after the last round that a run's folder holds."""
    rounds, institutions = store.tables()
    last = rounds.to_pylist()[-1]
    missed = tuple(
        row["institution"]
        for row in institutions.to_pylist()
        if row["round"] == last["round"]
        and (
            row["status"] in ("absent", "not selected")
            or (row["status"] == "failed" and not row["steps"])
        )
    )
    return Clock(last["simulated_start"] + last["simulated_seconds"], missed)
