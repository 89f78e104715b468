"""A run on the virtual clock: who can be reached in a round, and how long it took."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fedfuse_ray.federation.messages.records import TrainRecord
from fedfuse_ray.federation.modes.masked import Exchange, least_members
from fedfuse_ray.federation.modes.steps import UPDATE
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.plan.selection import selected
from fedfuse_ray.network import back_online, close_round, exchange_seconds, reachable

_MOST_WAITS = 1000


@dataclass(frozen=True)
class Attendance:
    """Who takes part in a round.

    Attributes:
        now: Simulated seconds since the run began.
        absent: Who can't be reached when it begins.
        anew: Who missed the broadcast before, and is sent the weights anew.
        unselected: Who can be reached, and was not chosen.
    """

    now: float = 0.0
    absent: tuple[str, ...] = ()
    anew: tuple[str, ...] = ()
    unselected: tuple[str, ...] = ()

    @property
    def idle(self) -> tuple[str, ...]:
        """Who does not train."""
        return self.absent + self.unselected


EVERYONE = Attendance()


def attend(plan: Plan, round: int, now: float, missed: tuple[str, ...]) -> Attendance:
    """Return who takes part in a round, and when it begins.

    The server chooses among those who can be reached. The round begins when enough are online, one
    or a secure round's threshold: hours in which no round is possible pass unnoticed.

    Args:
        plan: The federation's plan.
        round: From 1.
        now: Simulated seconds at the end of the round before.
        missed: Whom the broadcast before has not reached.
    """
    now = _begin(plan, now)
    seed = plan.experiment.seed
    reached = tuple(
        name for name, link in plan.links.items() if reachable(link, seed, name, round, now)
    )
    chosen = selected(plan, round, reached)
    return Attendance(
        now=now,
        absent=tuple(n for n in plan.links if n not in reached),
        anew=tuple(n for n in missed if n in chosen),
        unselected=tuple(n for n in reached if n not in chosen),
    )


def _begin(plan: Plan, now: float) -> float:
    """Return the first moment at which enough are online; `now` where there is none."""
    enough = least_members(plan) if plan.coding.secure else 1
    moment = now
    for _ in range(_MOST_WAITS):
        back = sorted(back_online(link, moment) for link in plan.links.values())
        if back[enough - 1] == moment:
            return moment
        moment = back[enough - 1]
        if not math.isfinite(moment):
            break
    return now


def round_seconds(
    plan: Plan,
    round: int,
    records: Iterable[TrainRecord],
    traffic: Mapping[str, Mapping[str, Exchange]],
    absent: tuple[str, ...],
) -> float:
    """Return a synchronous round's simulated seconds.

    A secure round waits at each of its steps for the slowest member; the deadline is the update's.
    Where institutions are selected, the server has asked nobody who can't be reached, and waits for
    none of them.

    Args:
        plan: The federation's plan.
        round: From 1.
        records: Of those who trained.
        traffic: Lengths of a secure round's messages, by step and institution.
        absent: Who could not be reached.
    """
    timings = {r.institution: r.timing for r in records}
    deadline = plan.experiment.network.aggregation.deadline_seconds
    awaited = absent if plan.experiment.selection.kind == "all" else ()
    total = close_round(timings, deadline, awaited).seconds
    for step, exchanges in traffic.items():
        total += max(
            (_exchange(plan, who, round, step, e) for who, e in exchanges.items()), default=0.0
        )
    return total


def _exchange(plan: Plan, who: str, round: int, step: str, exchange: Exchange) -> float:
    return exchange_seconds(
        plan.links[who],
        seed=plan.experiment.seed,
        name=who,
        round=round,
        step=step,
        # The update's own way is in its sender's timing.
        uplink_bytes=0 if step in UPDATE else exchange.uplink_bytes,
        downlink_bytes=exchange.downlink_bytes,
    )
