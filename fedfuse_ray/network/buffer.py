"""Buffered asynchronous aggregation: which updates the server's next step takes, and their weights.

Reference: Nguyen et al., "Federated Learning with Buffered Asynchronous Aggregation", 2022, arXiv
2106.06639, algorithm 1: the server steps whenever a fixed number of updates has arrived, and an
institution starts again from the current model as soon as it has sent. A stale update is weighed by
the paper's polynomial, whose exponent was 1/2 in its experiments.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Flight:
    """An update on its way.

    Attributes:
        institution: Who trains it.
        version: Server steps that the model had seen when the institution fetched it.
        started: Simulated seconds since the run began, when it was fetched.
        arrives: When the update reaches the server.
    """

    institution: str
    version: int
    started: float
    arrives: float


def next_buffer(flights: Iterable[Flight], size: int) -> tuple[Flight, ...]:
    """Return the updates of the server's next step, in the order in which they arrive.

    Args:
        flights: All updates on their way, in the order of the institutions, which decides between
            simultaneous arrivals.
        size: Updates a step.

    Returns:
        The `size` earliest; all of them where fewer are on their way.

    Raises:
        ValueError: `size` is below one: the server would never step.
    """
    if size < 1:
        raise ValueError(f"size: {size}; a step needs at least one update")
    return tuple(sorted(flights, key=lambda flight: flight.arrives)[:size])


def staleness_weight(staleness: int, exponent: float) -> float:
    """Return the weight (1 + s)^-exponent of an update that is `s` server steps old.

    Args:
        staleness: Server steps since the institution fetched the model.
        exponent: Zero weighs all updates alike.

    Raises:
        ValueError: The update is newer than the model.
    """
    if staleness < 0:
        raise ValueError(f"staleness: {staleness}; an update can't be newer than the model")
    return float((1.0 + staleness) ** -exponent)
