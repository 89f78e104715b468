"""What Ray's dashboard calls the tasks of a round."""

from __future__ import annotations

import math

_LABELS = 20


def of_round(round: int, total: int) -> str:
    """Return 'round 3', or in a run of many rounds 'rounds 26-50'.

    Ray keeps metrics for every name of a task that it has seen, which costs a driver 0.1 MB for
    each round that has names of its own; so a long run has about twenty names, not hundreds.

    Args:
        round: From 1.
        total: The run's rounds.
    """
    if total <= 2 * _LABELS:
        return f"round {round}"
    width = math.ceil(total / _LABELS)
    first = (round - 1) // width * width + 1
    return f"rounds {first}-{min(first + width - 1, total)}"
