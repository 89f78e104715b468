"""What becomes of messages on their way from institutions to the server.

It is the driver's part of a mode. It handles references: what they refer to need not be here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

from fedfuse_ray.federation.messages.records import Carried, TrainRecord
from fedfuse_ray.federation.modes.outcome import (
    Attendance,
    Closed,
    RoundOutcome,
    Times,
    synchronous_outcome,
)
from fedfuse_ray.federation.plan.plan import Plan

R = TypeVar("R")
"""A list of messages, or a reference to one."""

Sent = Sequence[tuple[R, Sequence[str]]]
"""References to lists of messages, each with the institutions whose are wanted of it."""


class Direct(Generic[R]):
    """Every message arrives at once.

    Args:
        plan: The federation's plan.
        update_step: The step in which institutions send their update.
        carried: Updates on their way, by institution; none here.
    """

    def __init__(
        self, plan: Plan, update_step: str, carried: Mapping[str, Carried[R]] = {}
    ) -> None:
        self.plan, self._update_step = plan, update_step
        self.carried = dict(carried)

    def idle(self, attendance: Attendance) -> Sequence[str]:
        """Return who does not train in the round that begins."""
        return attendance.idle

    def deliver(
        self, round: int, now: float, sent: Sent[R], records: Sequence[TrainRecord]
    ) -> tuple[Sent[R], Sequence[TrainRecord]]:
        """Return what arrives at the server in this round, and the records of it."""
        return sent, records

    def outcome(
        self,
        round: int,
        attendance: Attendance,
        records: Sequence[TrainRecord],
        closed: Closed,
        times: Times,
    ) -> RoundOutcome:
        """Return what the round left behind."""
        return synchronous_outcome(
            self.plan, self._update_step, round, attendance, records, closed, times
        )

    def in_order(self, names: Iterable[str]) -> list[str]:
        """Return names in participants' order."""
        wanted = set(names)
        return [name for name in self.plan.by_name if name in wanted]


class Delivery(Protocol):
    """Begins what becomes of a run's messages: `Direct`, or a class with its methods."""

    def __call__(
        self, plan: Plan, update_step: str, carried: Mapping[str, Carried[R]]
    ) -> Direct[R]:
        """Return it, with the updates that were on their way when the run was broken off."""
        ...
