"""A run's rows in the tables of rounds and of institutions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from fedfuse_ray.federation.messages.metrics import macro_f1
from fedfuse_ray.federation.messages.records import Alone, TrainRecord
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.rounds.loop import Round
from fedfuse_ray.federation.rounds.scoring import OVERALL, round_scores, validation_accuracy
from fedfuse_ray.report.rows import InstitutionRow, RoundRow, Status


def round_rows(
    plan: Plan, finished: Round, epsilon: float | None, epsilons: Mapping[str, float]
) -> tuple[RoundRow, list[InstitutionRow]]:
    """Return a round's row of `rounds.parquet`, and its institutions' rows.

    Epsilon is the largest so far, if the run is private, and each institution's.
    """
    outcome = finished.outcome
    records = outcome.records
    scored = round_scores(plan, finished.scores) if finished.scores else {}
    f1 = round_scores(plan, finished.scores, macro_f1).get(OVERALL) if finished.scores else None
    validation = {s.name: s.correct / s.total for s in finished.scores or () if s.total}
    trained = [r for r in records if r.steps and r.institution not in outcome.dropouts]
    row = RoundRow(
        round=finished.number,
        loss=_mean_loss(plan, trained),
        seconds=finished.seconds,
        train_seconds=outcome.train_seconds,
        aggregate_seconds=outcome.aggregate_seconds,
        evaluate_seconds=finished.evaluate_seconds,
        simulated_start=outcome.simulated_start,
        simulated_seconds=outcome.simulated_seconds,
        uplink_bytes=sum(r.uplink_bytes for r in records),
        downlink_bytes=sum(r.downlink_bytes for r in records),
        participants=len(trained),
        dropouts=len(outcome.dropouts),
        accuracy=scored.get(OVERALL),
        domain_accuracy={d: scored.get(d) for d in plan.spec.domains},
        macro_f1=f1,
        epsilon=epsilon,
        validation_accuracy=validation_accuracy(finished.scores or ()),
    )
    return row, _institution_rows(plan, finished, validation, epsilons)


def _mean_loss(plan: Plan, trained: Sequence[TrainRecord]) -> float | None:
    """Return the mean weighted by specimens; None where nobody tells it."""
    told = [(r.loss, plan.by_name[r.institution].specimens) for r in trained if r.loss is not None]
    if not told:
        return None
    losses, specimens = zip(*told, strict=True)
    return float(np.average(losses, weights=specimens))


def _institution_rows(
    plan: Plan, finished: Round, validation: Mapping[str, float], epsilons: Mapping[str, float]
) -> list[InstitutionRow]:
    """Return the rows of who trained, of who could not be reached, and of who was not chosen."""
    outcome = finished.outcome
    answered = {r.institution for r in outcome.records}
    rows = [_trained_row(plan, finished, r) for r in outcome.records]
    if not plan.asynchronous:
        absent = (name for name in outcome.dropouts if name not in answered)
        rows += [_idle_row(plan, finished, name, "absent") for name in absent]
    rows += [_idle_row(plan, finished, name, "not selected") for name in outcome.unselected]
    return [
        replace(
            row,
            validation_accuracy=validation.get(row.institution),
            epsilon=epsilons.get(row.institution),
        )
        for row in rows
    ]


def _trained_row(plan: Plan, finished: Round, record: TrainRecord) -> InstitutionRow:
    outcome = finished.outcome
    lost = record.institution in outcome.dropouts
    status: Status = "late" if record.late else "failed" if lost else "sent"
    bits = {name: round(value, 3) for name, value in record.bits_per_parameter.items()}
    return replace(
        _idle_row(plan, finished, record.institution, status),
        steps=record.steps,
        loss=record.loss if record.steps else None,
        train_seconds=record.seconds,
        uplink_bytes=record.uplink_bytes,
        downlink_bytes=record.downlink_bytes,
        started=outcome.simulated_start if record.started is None else record.started,
        download_seconds=record.timing.download,
        compute_seconds=record.timing.compute,
        upload_seconds=record.timing.upload,
        payload_bytes=0 if record.late else record.payload_bytes,
        staleness=record.staleness,
        compression=json.dumps(bits, separators=(",", ":")) if bits else "",
    )


def _idle_row(plan: Plan, finished: Round, name: str, status: Status) -> InstitutionRow:
    row = _empty_row(plan, finished.number, name)
    return replace(row, status=status, started=finished.outcome.simulated_start)


def _empty_row(plan: Plan, number: int, name: str) -> InstitutionRow:
    participant = plan.by_name[name]
    return InstitutionRow(
        round=number,
        institution=name,
        domain=participant.domain,
        modalities=participant.modalities,
        specimens=participant.specimens,
        steps=0,
        loss=None,
        train_seconds=0.0,
        uplink_bytes=0,
        downlink_bytes=0,
        patients=participant.patients,
    )


def alone_rows(
    plan: Plan, trained: Sequence[Alone]
) -> Iterator[tuple[RoundRow, list[InstitutionRow]]]:
    """Yield a row for each epoch, over the participants that still trained then."""
    for epoch in range(1, max(len(a.losses) for a in trained) + 1):
        still = [a for a in trained if len(a.losses) >= epoch]
        institutions = [_alone_row(plan, a, epoch) for a in still]
        weights = [row.specimens for row in institutions]
        seconds = sum(row.train_seconds for row in institutions)
        yield (
            RoundRow(
                round=epoch,
                loss=float(np.average([a.losses[epoch - 1] for a in still], weights=weights)),
                seconds=seconds,
                train_seconds=seconds,
                aggregate_seconds=0.0,
                evaluate_seconds=0.0,
                simulated_seconds=max(row.compute_seconds for row in institutions),
                uplink_bytes=0,
                downlink_bytes=0,
                participants=len(still),
                domain_accuracy=dict.fromkeys(plan.spec.domains),
                validation_accuracy=float(
                    np.average([a.validation[epoch - 1] for a in still], weights=weights)
                ),
            ),
            institutions,
        )


def _alone_row(plan: Plan, alone: Alone, epoch: int) -> InstitutionRow:
    participant = plan.by_name[alone.scores.name]
    speed = plan.experiment.network.specimens_per_second * participant.speed
    return replace(
        _empty_row(plan, epoch, participant.name),
        steps=-(-participant.specimens // participant.batch_size),
        loss=alone.losses[epoch - 1],
        train_seconds=alone.seconds / len(alone.losses),
        compute_seconds=participant.specimens / speed,
        validation_accuracy=alone.validation[epoch - 1],
    )
