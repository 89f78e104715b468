"""Asynchronous rounds: updates on their way, and which of them the server steps with.

An institution fetches the model, trains, and its update arrives when the virtual clock says so; it
fetches again at once. The server steps whenever its buffer is full (Nguyen et al., 2022, FedBuff,
arXiv 2106.06639, Algorithm 1), and that step counts as a round.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from fedfuse_ray.federation.messages.records import TrainRecord
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.rounds.timeline import Attendance
from fedfuse_ray.network import Flight, next_buffer


@dataclass(frozen=True)
class Carried:
    """An update on its way.

    Attributes:
        flight: When it was begun, and when it arrives.
        record: What its institution reported.
        payload: The encoded update, or a reference to what holds it.
    """

    flight: Flight
    record: TrainRecord
    payload: Any


@dataclass
class Buffered:
    """The updates on their way, by institution.

    Attributes:
        plan: The federation's plan.
        carried: The updates.
    """

    plan: Plan
    carried: dict[str, Carried] = field(default_factory=dict)

    def idle(self, attendance: Attendance) -> tuple[str, ...]:
        """Return who fetches the model now: whoever can be reached and has nothing on its way."""
        names = (p.name for p in self.plan.participants)
        return tuple(n for n in names if n not in self.carried and n not in attendance.absent)

    def send(self, round: int, now: float, record: TrainRecord, payload: Any) -> None:
        """Put an update on its way, begun for the step `round`."""
        name = record.institution
        flight = Flight(name, round - 1, now, now + record.timing.total)
        self.carried[name] = Carried(flight, record, payload)

    def arrive(self, round: int) -> list[Carried]:
        """Take the next buffer's updates off their way, in participants' order."""
        order = [self.carried[p.name] for p in self.plan.participants if p.name in self.carried]
        size = self.plan.experiment.network.aggregation.buffer_size
        chosen = {f.institution for f in next_buffer([c.flight for c in order], size)}
        arrived = [c for c in order if c.flight.institution in chosen]
        for name in chosen:
            del self.carried[name]
        return [_aged(c, round) for c in arrived]

    def underway(self, round: int) -> list[TrainRecord]:
        """Return the records of what is still on its way after the last round: too late for it."""
        order = (self.carried[p.name] for p in self.plan.participants if p.name in self.carried)
        return [replace(_aged(c, round).record, late=True, uplink_bytes=0) for c in order]


def _aged(carried: Carried, round: int) -> Carried:
    staleness, started = round - 1 - carried.flight.version, carried.flight.started
    return replace(carried, record=replace(carried.record, staleness=staleness, started=started))


def buffer_seconds(arrived: Iterable[Carried], now: float) -> float:
    """Return the simulated seconds until the last update of a buffer arrived."""
    return max(max((c.flight.arrives for c in arrived), default=now) - now, 0.0)
