"""From a budget to the noise multiplier: never above the target, and hardly below it.

The search runs on the same `epsilon` that the ledger is charged with, so a calibrated run ends
within its budget by construction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import lru_cache

from fedfuse_ray.errors import InputError
from fedfuse_ray.privacy.accounting.epsilon import epsilon
from fedfuse_ray.privacy.accounting.ledger import PrivacyEvent

_LARGEST_SIGMA = 1e9


def calibrate(
    releases: Callable[[float], Iterable[PrivacyEvent]],
    target_epsilon: float,
    delta: float,
    accountant: str = "pld",
) -> float:
    """Return the smallest noise multiplier whose events stay within `target_epsilon`.

    Args:
        releases: All events of a run, given the noise multiplier; more noise must not cost more.
        target_epsilon: The budget.
        delta: The guarantee's delta.
        accountant: `pld` or `rdp`.

    Returns:
        A multiplier at which this module's own `epsilon` is at most `target_epsilon`, and either
        the epsilon or the multiplier within 0.01% of it.

    Raises:
        InputError: No amount of noise reaches the target.
    """
    if not 0.0 < target_epsilon < math.inf:
        raise InputError("privacy.target_epsilon", target_epsilon, "use a positive number")

    def excess(log_sigma: float) -> float:
        spent = epsilon(releases(math.exp(log_sigma)), delta, accountant)
        return math.log(max(spent, 1e-12) / target_epsilon)

    bracket = _bracket(excess)
    if bracket is None:
        remedy = "no noise reaches it; grant more, or train less"
        raise InputError("privacy.target_epsilon", target_epsilon, remedy)
    return math.exp(_narrow(excess, *bracket))


Point = tuple[float, float]
"""(log sigma, log of epsilon over target)."""


def _bracket(excess: Callable[[float], float]) -> tuple[Point, Point] | None:
    """Return a point over the target and one within it; null when there is none."""
    here = (0.0, excess(0.0))
    over = here[1] > 0.0
    while (here[1] > 0.0) == over:
        there = here
        # Epsilon falls about like 1/sigma: jump to where the target should be, and a bit over.
        x = there[0] + math.copysign(min(abs(there[1]) + 0.1, 4.0), there[1] or -1.0)
        if not -math.log(_LARGEST_SIGMA) < x < math.log(_LARGEST_SIGMA):
            return None
        here = (x, excess(x))
    return (there, here) if over else (here, there)


def _narrow(excess: Callable[[float], float], over: Point, within: Point) -> float:
    """Return a log sigma within the target, by the Illinois method; `within` stays so."""
    tolerance, side = 1e-4, 0
    over_weight, within_weight = over[1], within[1]
    while within[1] < -tolerance and within[0] - over[0] > tolerance / 10.0:
        slope = over_weight - within_weight
        # Aim half a tolerance inside the target, so that hitting the aim ends the search.
        x = over[0] + (within[0] - over[0]) * (over_weight + tolerance / 2.0) / slope
        if not over[0] < x < within[0]:
            x = (over[0] + within[0]) / 2.0
        value = excess(x)
        if value > 0.0:
            over, over_weight = (x, value), value
            within_weight = within_weight / 2.0 if side > 0 else within[1]
            side = 1
        else:
            within, within_weight = (x, value), value
            over_weight = over_weight / 2.0 if side < 0 else over[1]
            side = -1
    return within[0]


@lru_cache(maxsize=1024)
def calibrate_noise_multiplier(
    target_epsilon: float,
    delta: float,
    sampling_rate: float,
    steps: int,
    factors: tuple[float, ...] = (1.0,),
    accountant: str = "pld",
    ripple: float = 0.0,
) -> float:
    """Return sigma for `steps` Gaussian releases at a Poisson `sampling_rate`; see `calibrate`.

    The factors are a schedule of multiples of sigma, in equal shares of `steps`. The ripple is that
    of all releases together, as rounding leaves it (`mechanisms/rounding.py`).

    Raises:
        InputError: A value out of bounds, or `steps` is no multiple of the schedule's length.

    >>> round(calibrate_noise_multiplier(1.0, 1e-5, sampling_rate=1.0, steps=1), 2)
    3.73
    """
    if steps < 1 or not factors or steps % len(factors):
        raise InputError("steps", steps, f"use a positive multiple of {max(1, len(factors))}")
    share, each = steps // len(factors), ripple / steps or None

    def releases(sigma: float) -> list[PrivacyEvent]:
        return [
            PrivacyEvent(
                0, "any", (), "gaussian", sigma * factor, sampling_rate, share, ripple=each
            )
            for factor in factors
        ]

    return calibrate(releases, target_epsilon, delta, accountant)
