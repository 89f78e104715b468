"""Poisson sampling: every record takes part in a step independently, with the same probability.

The rate comes from *public* numbers (a batch size, the published size of a data set), the update is
divided by the *expected* batch, and an empty batch is a step of noise alone: then a batch tells
nothing beyond what the accountant charges. Shuffling into batches of one size is another mechanism,
which this accounting does not cover.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from fedfuse_ray.errors import InputError
from fedfuse_ray.privacy.randomness import Randomness


def sampling_rate(batch_size: int, public_size: int) -> float:
    """Return q = batch_size / public_size, at most 1.

    Raises:
        InputError: A size below 1.

    >>> sampling_rate(64, 1600)
    0.04
    """
    if batch_size < 1 or public_size < 1:
        raise InputError("batch_size", (batch_size, public_size), "sizes are at least 1")
    return min(1.0, batch_size / public_size)


def steps_per_epoch(batch_size: int, public_size: int) -> int:
    """Return the steps of one epoch: public size over batch size, rounded up.

    >>> steps_per_epoch(64, 1650)
    26
    """
    return math.ceil(1.0 / sampling_rate(batch_size, public_size) - 1e-9)


def expected_batch(rate: float, public_size: int) -> float:
    """Return q N, what a sum of gradients is divided by, whatever the batch's true size."""
    return rate * public_size


def poisson_sample(
    size: int, rate: float, draws: Randomness, institution: str, round_: int, step: int = 0
) -> npt.NDArray[np.intp]:
    """Return the records of one step, as ascending indices; possibly none.

    Args:
        size: Records that the institution holds.
        rate: q, each record's probability; 1 takes every record.
        draws: The run's randomness, given the incoming weights.
        institution: Part of the stream's name, with `round_` and `step`: no two steps share one.
        round_: The communication round.
        step: The local step within the round.

    Raises:
        InputError: `rate` is no probability above 0.

    Formal guarantees: inclusions are independent and have probability q (to double precision).
    The amplification holds against whoever does not know the root of `draws`.

    >>> from fedfuse_ray.privacy.randomness import derived
    >>> poisson_sample(4, 1.0, derived(0), institution="med-01", round_=1).tolist()
    [0, 1, 2, 3]
    """
    if not 0.0 < rate <= 1.0:
        raise InputError("privacy.sampling_rate", rate, "use a probability above 0, at most 1")
    if rate == 1.0:
        return np.arange(size, dtype=np.intp)
    generator = draws.stream("poisson-sample", institution, round_, step)
    return np.flatnonzero(generator.random(size) < rate)
