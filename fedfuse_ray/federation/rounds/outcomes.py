"""From what a round returned to its outcome; the same on every executor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedfuse_ray.federation.messages.records import TrainRecord, nothing_trained, with_traffic
from fedfuse_ray.federation.modes.buffered import Buffered, Carried, buffer_seconds
from fedfuse_ray.federation.modes.masked import Exchange, total_bytes
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.rounds.executor import RoundOutcome
from fedfuse_ray.federation.rounds.timeline import Attendance, round_seconds
from fedfuse_ray.federation.server.server import Aggregation

Times = tuple[float, float, float]
"""When the round began, when its updates were there, when the server had stepped: wall seconds."""

Traffic = Mapping[str, Mapping[str, Exchange]]


def plain_outcome(
    plan: Plan,
    round: int,
    attendance: Attendance,
    records: Sequence[TrainRecord],
    aggregation: Aggregation,
    times: Times,
) -> RoundOutcome:
    """Return the outcome of a round in which every update is one message."""
    out = {r.institution for r in records if r.late} | refused(aggregation)
    return RoundOutcome(
        records=tuple(records),
        dropouts=tuple(n for n in plan.by_name if n in out or n in attendance.absent),
        aggregation=aggregation,
        train_seconds=times[1] - times[0],
        aggregate_seconds=times[2] - times[1],
        simulated_start=attendance.now,
        simulated_seconds=round_seconds(plan, round, records, {}, attendance.absent),
        fetched=tuple(r.institution for r in records),
        unselected=attendance.unselected,
    )


def refused(aggregation: Aggregation) -> set[str]:
    """Return whose update was turned away, and no other of theirs taken."""
    return {who for who, _ in aggregation.refused if who not in aggregation.accepted}


def secure_outcome(
    plan: Plan,
    round: int,
    attendance: Attendance,
    records: Sequence[TrainRecord],
    sums: tuple[Traffic, tuple[str, ...]],
    aggregation: Aggregation,
    times: Times,
) -> RoundOutcome:
    """Return the outcome of a secure round; `sums` is its traffic, and who was lost."""
    traffic, dropouts = sums
    sent, received = total_bytes(traffic)
    known = {r.institution: r for r in records}
    # A round may be lost before its members fetched the model, let alone trained.
    everyone = [known.get(n) or nothing_trained(n) for n in plan.by_name if n in known or n in sent]
    return RoundOutcome(
        records=with_traffic(everyone, sent, received),
        dropouts=dropouts,
        aggregation=aggregation,
        train_seconds=times[1] - times[0],
        aggregate_seconds=times[2] - times[1],
        simulated_start=attendance.now,
        simulated_seconds=round_seconds(plan, round, records, traffic, attendance.absent),
        fetched=tuple(known),
    )


def buffered_outcome(
    buffered: Buffered,
    round: int,
    attendance: Attendance,
    arrived: Sequence[Carried],
    aggregation: Aggregation,
    times: Times,
) -> RoundOutcome:
    """Return the outcome of a server step over a buffer of updates.

    The last one also tells of those that came too late for any step.
    """
    last = round == buffered.plan.experiment.training.rounds
    lost = buffered.underway(round) if last else []
    out = {r.institution for r in lost} | refused(aggregation)
    return RoundOutcome(
        records=(*(c.record for c in arrived), *lost),
        dropouts=tuple(name for name in buffered.plan.by_name if name in out),
        aggregation=aggregation,
        train_seconds=times[1] - times[0],
        aggregate_seconds=times[2] - times[1],
        simulated_start=attendance.now,
        simulated_seconds=buffer_seconds(arrived, attendance.now),
    )
