"""One round from broadcast to the server's step; the same wherever institutions live."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

from fedfuse_ray.federation.messages.records import Carried, TrainRecord
from fedfuse_ray.federation.modes import mode_of
from fedfuse_ray.federation.modes.delivery import Sent
from fedfuse_ray.federation.modes.outcome import Attendance, Closed, RoundOutcome
from fedfuse_ray.federation.plan.plan import Plan

R = TypeVar("R")
"""A list of messages, or a reference to one."""


class Calls(Protocol[R]):
    """How the driver reaches institutions and server: in this process, or through Ray.

    The broadcast and the server's answers stay with the calls; the driver never sees them.
    """

    def begin(self, round: int, epoch: int) -> None:
        """Have the server broadcast.

        Args:
            round: From 1.
            epoch: How often the round's noise was drawn anew.
        """
        ...

    def take(
        self, step: str, round: int, idle: Sequence[str], behind: Sequence[str]
    ) -> tuple[Sent[R], Iterable[TrainRecord]]:
        """Let all institutions but the idle ones take a step.

        Args:
            step: One of the mode's steps.
            round: From 1.
            idle: Who takes no part.
            behind: Who missed the broadcast before.
        """
        ...

    def close(self, step: str, round: int, sent: Sent[R]) -> bool:
        """Have the server close a step before the last; False says that the round is lost."""
        ...

    def finish(self, round: int, sent: Sent[R]) -> Closed:
        """Have the server close the last step, and step itself."""
        ...

    def lost(self, round: int) -> Closed:
        """Have the server end a round that is lost."""
        ...


class RoundDriver(Generic[R]):
    """Drives a federation's rounds, in whichever mode they are.

    Args:
        plan: The federation's plan.
        calls: How institutions and server are reached.
        carried: Updates on their way, by institution, at the start.
    """

    def __init__(self, plan: Plan, calls: Calls[R], carried: Mapping[str, Carried[R]] = {}) -> None:
        self._plan, self._calls, self._mode = plan, calls, mode_of(plan)
        self._delivery = self._mode.delivery(plan, self._mode.update, carried)

    @property
    def carried(self) -> Mapping[str, Carried[R]]:
        """Updates on their way, by institution."""
        return self._delivery.carried

    def run(self, round: int, attendance: Attendance, epoch: int = 0) -> RoundOutcome:
        """Run one round.

        Raises:
            SurvivorsChangedError: It was begun before with other survivors: charge it again, and
                run it with the next epoch.
        """
        calls, delivery, steps = self._calls, self._delivery, self._mode.names
        began = time.monotonic()
        calls.begin(round, epoch)
        idle = delivery.idle(attendance)
        records: list[TrainRecord] = []
        sent: Sent[R] = ()
        goes_on = True
        for step in steps:
            sent, told = calls.take(step, round, idle, attendance.behind)
            records += told
            if step != steps[-1] and not (goes_on := calls.close(step, round, sent)):
                break
        collected = time.monotonic()
        by_name = {r.institution: r for r in records}
        ordered: Sequence[TrainRecord] = [by_name[n] for n in delivery.in_order(by_name)]
        if goes_on:
            sent, ordered = delivery.deliver(round, attendance.now, sent, ordered)
            closed = calls.finish(round, sent)
        else:
            closed = calls.lost(round)
        times = (began, collected, time.monotonic())
        return delivery.outcome(round, attendance, ordered, closed, times)
