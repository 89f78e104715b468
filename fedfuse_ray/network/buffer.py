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
    """An update on its way, of the model that had seen `version` server steps when it was fetched.

    It was fetched and arrives so many simulated seconds after the run began.
    """

    institution: str
    version: int
    started: float
    arrives: float


def next_buffer(flights: Iterable[Flight], size: int) -> tuple[Flight, ...]:
    """Return the updates of the server's next step, in the order in which they arrive.

    They are the `size` earliest, or all where fewer are on their way. Flights are in the order of
    the institutions, which decides between simultaneous arrivals.

    Raises:
        ValueError: `size` is below one: the server would never step.
    """
    if size < 1:
        raise ValueError(f"size: {size}; a step needs at least one update")
    return tuple(sorted(flights, key=lambda flight: flight.arrives)[:size])


def staleness_weight(staleness: int, exponent: float) -> float:
    """Return the weight (1 + s)^-exponent of an update that is `s` server steps old.

    Raises:
        ValueError: The update is newer than the model.
    """
    if staleness < 0:
        raise ValueError(f"staleness: {staleness}; an update can't be newer than the model")
    return float((1.0 + staleness) ** -exponent)
