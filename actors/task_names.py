"""What Ray's dashboard calls the tasks of a round."""

from __future__ import annotations

_SINGLE = 40
_FIRST = 20


def of_round(round: int, total: int) -> str:
    """Return 'round 3', or in a run of many rounds 'rounds 21-40'.

    Ray keeps metrics for every name of a task that it has seen, 0.1 MB each in the driver and more
    in the node's agent. So a run of more than forty rounds names spans, each as long as all before
    it: their number grows with the logarithm of the rounds, and memory is flat.

    Args:
        round: From 1.
        total: The run's rounds.
    """
    if total <= _SINGLE:
        return f"round {round}"
    end = _FIRST
    while end < round:
        end *= 2
    first = 1 if end == _FIRST else end // 2 + 1
    return f"rounds {first}-{min(end, total)}"
