"""Whether an institution can be reached: by chance, and outside its offline hours."""

from __future__ import annotations

import math

from fedfuse_ray import rng
from fedfuse_ray.config.settings.network import LinkConfig


def reachable(link: LinkConfig | None, seed: int, name: str, round: int, now: float) -> bool:
    """Return whether the institution answers when a round begins.

    Args:
        link: Its link; the ideal one, None, always answers.
        seed: The run's seed.
        name: The institution; with seed and round it names the draw against
            `link.availability`, so that no institution's luck depends on another's.
        round: From 1.
        now: Simulated seconds since the run began.
    """
    if link is None:
        return True
    if _offline_until(link, now) is not None:
        return False
    draw = rng.generator(seed, "availability", name, round).random()
    return bool(draw < link.availability)


def back_online(link: LinkConfig | None, now: float) -> float:
    """Return the first moment from `now` on that lies in no offline span.

    While everybody is offline no round can run, and a clock that stood still would never bring
    anybody back. Such a round should begin at the smallest of these moments.

    Args:
        link: The institution's link.
        now: Simulated seconds since the run began.

    Returns:
        `now` itself where the institution is online; infinity where its spans leave no gap.
    """
    if link is None:
        return now
    moment = now
    while (end := _offline_until(link, moment)) is not None:
        # Rounding may put the end of a span back into it; time has to pass all the same.
        moment = max(end, math.nextafter(moment, math.inf))
        if link.offline_period is not None and moment - now > link.offline_period:
            return math.inf
    return moment


def _offline_until(link: LinkConfig, now: float) -> float | None:
    """Return the end of the span that holds `now`, in simulated seconds; None outside of all."""
    position = now if link.offline_period is None else now % link.offline_period
    for start, end in link.offline:
        if start <= position < end:
            return now + (end - position)
    return None
