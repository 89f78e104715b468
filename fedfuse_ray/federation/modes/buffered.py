"""Asynchronous rounds: updates on their way, and which of them the server steps with.

An institution fetches the model, trains, and its update arrives when the virtual clock says so; it
fetches again at once. The server steps whenever its buffer is full (Nguyen et al., 2022, FedBuff,
arXiv 2106.06639, Algorithm 1), and that step counts as a round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from fedfuse_ray.federation.messages.records import Carried, TrainRecord
from fedfuse_ray.federation.modes.delivery import Direct, Sent
from fedfuse_ray.federation.modes.exchange import Mode
from fedfuse_ray.federation.modes.outcome import (
    Attendance,
    Closed,
    RoundOutcome,
    Times,
    turned_away,
)
from fedfuse_ray.federation.modes.plain import PlainGathering, PlainMember, PlainStep
from fedfuse_ray.network import Flight, next_buffer

R = TypeVar("R")


class Buffered(Direct[R]):
    """Keeps the updates on their way, and delivers those of the next full buffer."""

    def idle(self, attendance: Attendance) -> Sequence[str]:
        """Return who does not fetch the model now: its update is on its way, or it is absent."""
        return [n for n in self.plan.by_name if n in self.carried or n in attendance.absent]

    def deliver(
        self, round: int, now: float, sent: Sent[R], records: Sequence[TrainRecord]
    ) -> tuple[Sent[R], Sequence[TrainRecord]]:
        """Put updates on their way, and take those of the next buffer off it, in order."""
        holder = {name: messages for messages, names in sent for name in names}
        for record in records:
            name = record.institution
            flight = Flight(name, round - 1, now, now + record.timing.total)
            self.carried[name] = Carried(flight, record, holder[name])
        arrived = self._arrive()
        return (
            [(c.payload, (c.flight.institution,)) for c in arrived],
            [_aged(c, round) for c in arrived],
        )

    def _arrive(self) -> list[Carried[R]]:
        order = [self.carried[name] for name in self.in_order(self.carried)]
        size = self.plan.experiment.network.aggregation.buffer_size
        chosen = {f.institution for f in next_buffer([c.flight for c in order], size)}
        return [self.carried.pop(name) for name in self.in_order(chosen)]

    def outcome(
        self,
        round: int,
        attendance: Attendance,
        records: Sequence[TrainRecord],
        closed: Closed,
        times: Times,
    ) -> RoundOutcome:
        """Return what the step left behind.

        The last round's outcome also has the updates that came too late for any step.
        """
        last = round == self.plan.experiment.training.rounds
        underway = [self.carried[name] for name in self.in_order(self.carried)] if last else []
        lost = [replace(_aged(c, round), late=True, uplink_bytes=0) for c in underway]
        out = {r.institution for r in lost} | turned_away(closed.aggregation)
        now = attendance.now
        arrivals = (r.started + r.timing.total for r in records if r.started is not None)
        return RoundOutcome(
            records=(*records, *lost),
            dropouts=tuple(self.in_order(out)),
            aggregation=closed.aggregation,
            train_seconds=times[1] - times[0],
            aggregate_seconds=times[2] - times[1],
            simulated_start=now,
            simulated_seconds=max(max(arrivals, default=now) - now, 0.0),
        )


def _aged(carried: Carried[R], round: int) -> TrainRecord:
    """Return the record of an update that arrives in a round."""
    staleness, started = round - 1 - carried.flight.version, carried.flight.started
    return replace(carried.record, staleness=staleness, started=started)


MODE = Mode(
    steps=PlainStep,
    update=PlainStep.TRAIN,
    member=PlainMember,
    gathering=PlainGathering,
    delivery=Buffered,
)
