"""How soon a run came to where it ended: rounds to convergence, read off its rounds table."""

from __future__ import annotations

from typing import Any

from fedfuse_ray.errors import InputError
from fedfuse_ray.report.theme import columns


def rounds_to_reach(rounds: Any, fraction: float = 0.95) -> int | None:
    """Return the round from which on the accuracy stays at `fraction` of the last one.

    A round that touches the level and falls below it again does not count. Rounds that were not
    evaluated are passed over, so the answer is no finer than `execution.evaluate_every`. Epochs
    are rounds times `training.local_epochs`.

    Args:
        rounds: The rounds table, an Arrow table with `round` and `accuracy`.
        fraction: Of the last evaluated round's accuracy, above 0 and up to 1.

    Returns:
        The round's number, from 1; None where no round was evaluated, as in paradigms without
        rounds.

    Raises:
        InputError: `fraction` is outside its range.
    """
    if not 0.0 < fraction <= 1.0:
        raise InputError("fraction", fraction, "give a fraction above 0, at most 1")
    evaluated = columns(rounds, "round", "accuracy")
    accuracy = evaluated["accuracy"]
    if not accuracy:
        return None
    level = fraction * accuracy[-1]
    below = [index for index, value in enumerate(accuracy) if value < level]
    first = below[-1] + 1 if below else 0
    return int(evaluated["round"][first])
