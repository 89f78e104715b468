"""A run on the virtual clock: who can be reached in a round, and when it begins."""

from __future__ import annotations

import math

from fedfuse_ray.federation.modes.outcome import Attendance
from fedfuse_ray.federation.modes.session import least_members
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.plan.selection import selected
from fedfuse_ray.network import back_online, reachable

_MOST_WAITS = 1000


def attend(plan: Plan, round: int, now: float, missed: tuple[str, ...]) -> Attendance:
    """Return who takes part in a round, and when it begins.

    The server chooses among those who can be reached. A round begins as soon as enough are online:
    one, or a secure round's threshold. The clock skips the time in which too few are.

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
        behind=tuple(n for n in missed if n in chosen),
        unselected=tuple(n for n in reached if n not in chosen),
    )


def _begin(plan: Plan, now: float) -> float:
    """Return the first moment at which enough are online; `now` where there is none."""
    enough = least_members(plan.terms) if plan.coding.secure else 1
    moment = now
    for _ in range(_MOST_WAITS):
        back = sorted(back_online(link, moment) for link in plan.links.values())
        if back[enough - 1] == moment:
            return moment
        moment = back[enough - 1]
        if not math.isfinite(moment):
            break
    return now
