"""What a round left behind, whichever mode it was in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fedfuse_ray.federation.messages.records import TrainRecord, nothing_trained, with_traffic
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.server.server import Aggregation
from fedfuse_ray.network import close_round, exchange_seconds

Times = tuple[float, float, float]
"""When the round began, when its updates were there, when the server had stepped: wall seconds."""


@dataclass(frozen=True)
class Exchange:
    """One step of one institution: the lengths of its message and of the answer."""

    uplink_bytes: int
    downlink_bytes: int


Traffic = Mapping[str, Mapping[str, Exchange]]
"""Lengths of a round's messages, by step and institution."""


@dataclass(frozen=True)
class Closed:
    """How the server closed a round.

    Attributes:
        aggregation: Whose updates it took.
        traffic: What was sent in each step, in modes of several steps.
        dropouts: Who was lost on the way.
    """

    aggregation: Aggregation
    traffic: Traffic = field(default_factory=dict)
    dropouts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attendance:
    """Who takes part in a round.

    Attributes:
        now: Simulated seconds since the run began.
        absent: Who can't be reached when it begins.
        behind: Who missed the broadcast before, and is sent the weights themselves.
        unselected: Who can be reached, and was not chosen.
    """

    now: float = 0.0
    absent: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    unselected: tuple[str, ...] = ()

    @property
    def idle(self) -> tuple[str, ...]:
        """Who does not train."""
        return self.absent + self.unselected


EVERYONE = Attendance()


@dataclass(frozen=True)
class RoundOutcome:
    """What a round of training left behind.

    Attributes:
        records: One for each participant that trained, in participants' order.
        dropouts: Names of those whose update is not in the sum.
        aggregation: The server's account.
        train_seconds: Until the last update had arrived.
        aggregate_seconds: The server's step.
        simulated_start: Seconds on the virtual clock when the round began.
        simulated_seconds: How long it took there.
        fetched: Whom the broadcast has reached.
        unselected: Who could be reached, and was not chosen to train.
    """

    records: tuple[TrainRecord, ...]
    dropouts: tuple[str, ...]
    aggregation: Aggregation
    train_seconds: float
    aggregate_seconds: float
    simulated_start: float = 0.0
    simulated_seconds: float = 0.0
    fetched: tuple[str, ...] = ()
    unselected: tuple[str, ...] = ()


def synchronous_outcome(
    plan: Plan,
    update_step: str,
    round: int,
    attendance: Attendance,
    records: Sequence[TrainRecord],
    closed: Closed,
    times: Times,
) -> RoundOutcome:
    """Return the outcome of a round that waits for all who take part in it."""
    known = {r.institution: r for r in records}
    out = {r.institution for r in records if r.late} | turned_away(closed.aggregation)
    out |= {*closed.dropouts, *attendance.absent}
    told = tuple(records)
    if closed.traffic:
        sent, received = total_bytes(closed.traffic)
        # A round may be lost before its members fetched the model, let alone trained.
        there = [n for n in plan.by_name if n in known or n in sent]
        told = with_traffic([known.get(n) or nothing_trained(n) for n in there], sent, received)
    return RoundOutcome(
        records=told,
        dropouts=tuple(name for name in plan.by_name if name in out),
        aggregation=closed.aggregation,
        train_seconds=times[1] - times[0],
        aggregate_seconds=times[2] - times[1],
        simulated_start=attendance.now,
        simulated_seconds=_seconds(
            plan, update_step, round, records, closed.traffic, attendance.absent
        ),
        fetched=tuple(known),
        unselected=attendance.unselected,
    )


def turned_away(aggregation: Aggregation) -> set[str]:
    """Return whose update was refused, and no other of theirs taken."""
    return {who for who, _ in aggregation.refused if who not in aggregation.accepted}


def total_bytes(traffic: Traffic) -> tuple[dict[str, int], dict[str, int]]:
    """Return bytes sent and bytes received by each institution, over all steps."""
    sent: dict[str, int] = {}
    received: dict[str, int] = {}
    for exchanges in traffic.values():
        for who, exchange in exchanges.items():
            sent[who] = sent.get(who, 0) + exchange.uplink_bytes
            received[who] = received.get(who, 0) + exchange.downlink_bytes
    return sent, received


def _seconds(
    plan: Plan,
    update_step: str,
    round: int,
    records: Sequence[TrainRecord],
    traffic: Traffic,
    absent: tuple[str, ...],
) -> float:
    """Return a synchronous round's simulated seconds.

    A round of several steps waits at each for the slowest member; the deadline is the update's.
    Where institutions are selected, the server has asked nobody who can't be reached, and waits for
    none of them.
    """
    timings = {r.institution: r.timing for r in records}
    deadline = plan.experiment.network.aggregation.deadline_seconds
    awaited = absent if plan.experiment.selection.kind == "all" else ()
    total = close_round(timings, deadline, awaited).seconds
    for step, exchanges in traffic.items():
        seconds = (
            exchange_seconds(
                plan.links[who],
                seed=plan.experiment.seed,
                name=who,
                round=round,
                step=step,
                # The update's own way is in its sender's timing.
                uplink_bytes=0 if step == update_step else exchange.uplink_bytes,
                downlink_bytes=exchange.downlink_bytes,
            )
            for who, exchange in exchanges.items()
        )
        total += max(seconds, default=0.0)
    return total
