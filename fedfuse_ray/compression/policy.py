"""The adaptive policy: which strength for which block, under an error target or a byte budget.

Each block comes with options, a strength with the bytes that it would cost and the squared error
that it would leave. Whoever makes the options up must do so from released quantities only; then the
choice is post-processing, and costs no privacy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from fedfuse_ray.compression.codec import Setting


@dataclass(frozen=True)
class Option:
    """One strength for one block: payload over all senders, squared error over squared norm."""

    setting: Setting
    nbytes: int
    error: float


def choose_for_error(
    options: Mapping[str, Sequence[Option]], error_target: float
) -> dict[str, Setting]:
    """Return each block's cheapest option within the target, or its most exact one."""
    chosen = {}
    for block, offered in options.items():
        good = [option for option in offered if option.error <= error_target]
        if good:
            best = min(good, key=lambda option: (option.nbytes, option.error))
        else:
            best = min(offered, key=lambda option: (option.error, option.nbytes))
        chosen[block] = best.setting
    return chosen


def choose_for_budget(
    options: Mapping[str, Sequence[Option]], energies: Mapping[str, float], byte_budget: int
) -> dict[str, Setting]:
    """Spend a budget where a byte lowers the total squared error most.

    Greedy over each block's lower convex hull, which is optimal up to one block's last step
    (Shoham and Gersho, 1988, "Efficient bit allocation for an arbitrary set of quantizers").

    Args:
        options: By block.
        energies: Squared norm of each block, which its errors are relative to.
        byte_budget: Bytes a round. The cheapest options are taken also where they cost more.
    """
    hulls = {block: lower_hull(offered) for block, offered in options.items()}
    at = dict.fromkeys(hulls, 0)
    spent = sum(hull[0].nbytes for hull in hulls.values())
    steps = []
    for block, hull in hulls.items():
        for index, (worse, better) in enumerate(pairwise(hull)):
            extra = better.nbytes - worse.nbytes
            gain = energies[block] * (worse.error - better.error) / extra
            steps.append((-gain, block, index, extra))
    for _, block, index, extra in sorted(steps):
        # Gains fall along a hull, so a block's steps come in order; one that was passed over
        # for its price blocks those behind it.
        if at[block] == index and spent + extra <= byte_budget:
            at[block], spent = index + 1, spent + extra
    return {block: hull[at[block]].setting for block, hull in hulls.items()}


def lower_hull(options: Sequence[Option]) -> list[Option]:
    """Return the options on the lower convex hull of error over bytes, cheapest first."""
    hull: list[Option] = []
    for option in sorted(options, key=lambda o: (o.nbytes, o.error)):
        if hull and option.error >= hull[-1].error:
            continue
        while len(hull) >= 2 and _slope(hull[-2], hull[-1]) >= _slope(hull[-2], option):
            hull.pop()
        hull.append(option)
    return hull


def _slope(one: Option, other: Option) -> float:
    return (other.error - one.error) / (other.nbytes - one.nbytes)
