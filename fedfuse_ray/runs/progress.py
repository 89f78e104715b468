"""Who is told how a run goes: the terminal, a job's log, Ray's metrics, a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fedfuse_ray.report.rows import RoundRows


class Progress(Protocol):
    """Who is told how a run goes."""

    def stage(self, text: str) -> None:
        """A stage began."""
        ...

    def advanced(self, done: int, total: int, what: str, rows: RoundRows | None) -> None:
        """A round, or a participant that trains alone, is done.

        Args:
            done: How many are.
            total: How many there will be.
            what: `round`, or the participant's name.
            rows: What the result folder says of the round; None for a participant.
        """
        ...


class Silent:
    """Tells nobody."""

    def stage(self, text: str) -> None:
        """Do nothing."""

    def advanced(self, done: int, total: int, what: str, rows: RoundRows | None) -> None:
        """Do nothing."""


class Several:
    """Tells several, one after the other."""

    def __init__(self, told: Sequence[Progress]) -> None:
        self._told = tuple(told)

    def stage(self, text: str) -> None:
        """A stage began."""
        for each in self._told:
            each.stage(text)

    def advanced(self, done: int, total: int, what: str, rows: RoundRows | None) -> None:
        """A round, or a participant that trains alone, is done."""
        for each in self._told:
            each.advanced(done, total, what, rows)
