"""From what a run returned to the rows and the summary that its folder holds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from fedfuse_ray.federation.messages.metrics import accuracy, macro_f1
from fedfuse_ray.federation.messages.records import Alone, TrainRecord
from fedfuse_ray.federation.plan import paradigms
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.rounds.loop import Round
from fedfuse_ray.federation.rounds.scoring import (
    OVERALL,
    FinalScores,
    round_scores,
    validation_accuracy,
)
from fedfuse_ray.report.rows import Status
from fedfuse_ray.report.schema import (
    CommunicationSummary,
    DomainEvaluation,
    Evaluation,
    InstitutionEvaluation,
    InstitutionRow,
    PrivacySummary,
    RoundRow,
    Summary,
    TimeSummary,
    ViewEvaluation,
)

_NO_PRIVACY = PrivacySummary(
    mode="none",
    epsilon=None,
    delta=None,
    epsilon_by_institution={},
    noise_multiplier=None,
    clip_norm=None,
    sampling_rate=None,
    steps=0,
    unit=None,
    adversary=None,
)


def round_rows(
    plan: Plan, finished: Round, epsilon: float | None, epsilons: Mapping[str, float]
) -> tuple[RoundRow, list[InstitutionRow]]:
    """Return a round's row of `rounds.parquet`, and its institutions' rows.

    Args:
        plan: The federation's plan.
        finished: The round.
        epsilon: The largest epsilon so far, if the run is private.
        epsilons: Each institution's.
    """
    outcome = finished.outcome
    records = outcome.records
    scored = round_scores(plan, finished.scores) if finished.scores else {}
    f1 = round_scores(plan, finished.scores, macro_f1)[OVERALL] if finished.scores else None
    validation = {s.name: s.correct / s.total for s in finished.scores or () if s.total}
    trained = [r for r in records if r.steps and r.institution not in outcome.dropouts]
    specimens = [plan.by_name[r.institution].specimens for r in trained]
    row = RoundRow(
        round=finished.number,
        loss=float(np.average([r.loss for r in trained], weights=specimens)) if trained else None,
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


def _institution_rows(
    plan: Plan,
    finished: Round,
    validation: Mapping[str, float],
    epsilons: Mapping[str, float],
) -> list[InstitutionRow]:
    """Return the rows of those who trained, of who could not be reached, of who was not chosen."""
    outcome = finished.outcome
    known = {r.institution for r in outcome.records}
    rows = [_trained_row(plan, finished, r) for r in outcome.records]
    if not plan.asynchronous:
        absent = (name for name in outcome.dropouts if name not in known)
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
    who, outcome = plan.by_name[record.institution], finished.outcome
    lost = record.institution in outcome.dropouts
    bits = {name: round(value, 3) for name, value in record.bits_per_parameter.items()}
    return InstitutionRow(
        round=finished.number,
        institution=who.name,
        domain=who.domain,
        modalities=who.modalities,
        specimens=who.specimens,
        steps=record.steps,
        loss=record.loss if record.steps else None,
        train_seconds=record.seconds,
        uplink_bytes=record.uplink_bytes,
        downlink_bytes=record.downlink_bytes,
        status="late" if record.late else "failed" if lost else "sent",
        started=outcome.simulated_start if record.started is None else record.started,
        download_seconds=record.timing.download,
        compute_seconds=record.timing.compute,
        upload_seconds=record.timing.upload,
        payload_bytes=0 if record.late else record.payload_bytes,
        staleness=record.staleness,
        compression=json.dumps(bits, separators=(",", ":")) if bits else "",
    )


def _idle_row(plan: Plan, finished: Round, name: str, status: Status) -> InstitutionRow:
    who = plan.by_name[name]
    return InstitutionRow(
        round=finished.number,
        institution=name,
        domain=who.domain,
        modalities=who.modalities,
        specimens=who.specimens,
        steps=0,
        loss=None,
        train_seconds=0.0,
        uplink_bytes=0,
        downlink_bytes=0,
        status=status,
        started=finished.outcome.simulated_start,
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


def evaluation(plan: Plan, scores: FinalScores) -> Evaluation:
    """Return the final scores in detail, as `evaluation.json` holds them."""
    domains = {}
    for domain, modalities in plan.spec.domains.items():
        domains[domain] = DomainEvaluation(
            classes=list(plan.classes[domain]),
            specimens=plan.test[domain],
            views=[
                ViewEvaluation(
                    modalities=view.view,
                    accuracy=accuracy(view.confusion),
                    macro_f1=macro_f1(view.confusion),
                    confusion=view.confusion.tolist(),
                    attention=None
                    if view.attention is None
                    else dict(zip(modalities, view.attention.tolist(), strict=True)),
                )
                for view in scores.views[domain]
            ],
        )
    institutions = {
        name: InstitutionEvaluation(
            domain=plan.by_name[name].domain,
            modalities=plan.by_name[name].modalities,
            accuracy=value,
        )
        for name, value in scores.institutions.items()
    }
    return Evaluation(domains=domains, institutions=institutions)


def summarise(
    plan: Plan,
    scores: FinalScores,
    tables: tuple[pa.Table, pa.Table],
    digest: str,
    fp32_uplink_bytes: int,
) -> Summary:
    """Return the summary, but for the wall and start-up times.

    Args:
        plan: The federation's plan.
        scores: The final scores.
        tables: The rounds and the institutions table.
        digest: Digest of the final weights.
        fp32_uplink_bytes: What a round's blocks weigh as plain fp32; 0 where nothing was sent.
    """
    experiment = plan.experiment
    rounds, institutions = tables
    count = rounds.num_rows
    payload = sum(institutions["payload_bytes"].to_pylist())
    uplink = sum(rounds["uplink_bytes"].to_pylist())
    downlink = sum(rounds["downlink_bytes"].to_pylist())
    seconds = rounds["seconds"].to_pylist()
    return Summary(
        paradigm=experiment.paradigm,
        preset=experiment.preset,
        seed=experiment.seed,
        executor=experiment.execution.executor,
        rounds=count,
        accuracy=scores.accuracy,
        accuracy_by_modality=scores.by_modality,
        macro_f1=scores.macro_f1,
        privacy=_NO_PRIVACY,
        communication=CommunicationSummary(
            uplink_bytes_per_round=uplink / max(1, count),
            downlink_bytes_per_round=downlink / max(1, count),
            uplink_bytes_total=uplink,
            fp32_uplink_bytes_per_round=fp32_uplink_bytes,
            codec=plan.coding.name if uplink else "none",
            payload_bytes_per_round=payload / max(1, count),
        ),
        time=TimeSummary(
            wall_seconds=0.0,
            startup_seconds=0.0,
            seconds_per_round=float(np.median(seconds[1:] or seconds)) if seconds else 0.0,
            simulated_seconds=sum(rounds["simulated_seconds"].to_pylist()),
        ),
        weights_sha256=digest,
    )


def privacy_summary(
    plan: Plan, epsilon: float | None, epsilons: Mapping[str, float], rounds: int
) -> PrivacySummary:
    """Return the guarantee as the ledger gives it.

    Where institutions differ, the noise multiplier, rate and steps are those of the one with the
    largest epsilon, so that these three numbers give that epsilon back.
    """
    terms = plan.privacy
    if terms is None or epsilon is None:
        return _NO_PRIVACY
    worst = max(epsilons, key=lambda name: epsilons[name])
    release = terms.releases[worst]
    return PrivacySummary(
        mode=terms.config.mode,
        epsilon=epsilon,
        delta=terms.config.delta,
        epsilon_by_institution=dict(epsilons),
        noise_multiplier=release.noise_multiplier,
        clip_norm=math.hypot(*terms.clip_norms.values()),
        sampling_rate=release.sampling_rate,
        steps=release.steps * min(rounds, terms.config.uplink_exposures or rounds),
        unit=terms.config.unit,
        adversary=paradigms.adversary(plan.experiment),
        audit=terms.audit,
    )


def fp32_uplink_bytes(plan: Plan, sizes: Mapping[str, int]) -> int:
    """Return the bytes of a round's blocks as plain fp32, without headers; 0 for pooled data."""
    if paradigms.is_pooled(plan.experiment):
        return 0
    return sum(4 * sizes[block] for p in plan.participants for block in plan.blocks_of(p))


def _alone_row(plan: Plan, alone: Alone, epoch: int) -> InstitutionRow:
    participant = plan.by_name[alone.scores.name]
    return InstitutionRow(
        round=epoch,
        institution=participant.name,
        domain=participant.domain,
        modalities=participant.modalities,
        specimens=participant.specimens,
        steps=-(-participant.specimens // participant.batch_size),
        loss=alone.losses[epoch - 1],
        train_seconds=alone.seconds / len(alone.losses),
        compute_seconds=participant.specimens
        / (plan.experiment.network.specimens_per_second * participant.speed),
        uplink_bytes=0,
        downlink_bytes=0,
        validation_accuracy=alone.validation[epoch - 1],
    )
