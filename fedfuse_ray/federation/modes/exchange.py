"""What every mode of a round consists of: its steps, and the two sides of each.

In each step every institution that takes part sends one message, or nothing; the server closes the
step and answers. The last step ends the round. A mode is one `Mode`; `MODES` lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, TypeVar

from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.federation.checkpoints.promise import Memory
from fedfuse_ray.federation.messages.downlink import Broadcast
from fedfuse_ray.federation.messages.records import Reply
from fedfuse_ray.federation.messages.updates import Kept
from fedfuse_ray.federation.modes.delivery import Delivery, Direct
from fedfuse_ray.federation.modes.outcome import Closed
from fedfuse_ray.federation.server.server import ParameterServer

if TYPE_CHECKING:  # torch: the server does without
    from fedfuse_ray.federation.institution.institution import Institution

Messages = Iterable[tuple[str, bytes | memoryview]]
"""Sender and message."""

S = TypeVar("S", bound=StrEnum)


@dataclass(frozen=True)
class Answer:
    """What the server answers a step with.

    Attributes:
        shared: To everybody.
        apart: To single institutions instead, by name.
    """

    shared: bytes = b""
    apart: Mapping[str, bytes] = field(default_factory=dict)

    def to(self, institution: str) -> bytes:
        """Return what one institution is answered."""
        return self.apart.get(institution, self.shared)


@dataclass(frozen=True)
class Turn:
    """What an institution is given to take a step with.

    Attributes:
        round: From 1.
        answer: The server's answer to the step before.
        broadcast: The server's broadcast.
        kept: What the institution kept from its last round.
        behind: It missed the broadcast before, so it is sent the weights themselves.
        memory: What was confirmed and begun before this attempt, as the disk remembers it.
    """

    round: int
    answer: Answer
    broadcast: Broadcast
    kept: Kept = field(default_factory=Kept)
    behind: bool = False
    memory: Memory = field(default_factory=Memory)


class Member(Protocol):
    """An institution's side of one round."""

    def take(self, step: str, turn: Turn) -> Reply:
        """Take one step.

        Raises:
            ProtocolError: The mode has no such step.
        """
        ...


class Gathering(Protocol):
    """The server's side of one round."""

    @property
    def survivors(self) -> tuple[str, ...]:
        """Whose updates will be in the sum, once that is settled before the last step."""
        ...

    def close(self, step: str, messages: Messages) -> Answer | None:
        """Take the messages of a step before the last; None says that the round is lost.

        Raises:
            ProtocolError: The mode has no such step.
        """
        ...

    def finish(self, messages: Messages) -> Closed:
        """Take the messages of the last step, and let the server step."""
        ...

    def lost(self) -> Closed:
        """End a round of which too little is left; the server steps without any update."""
        ...


@dataclass(frozen=True)
class Mode:
    """One way in which a round exchanges updates.

    Attributes:
        steps: In order.
        update: The step in which institutions train and send their update.
        member: Begins an institution's side of a round.
        gathering: Begins the server's side of a round, from 1.
        delivery: What becomes of messages between the two sides.
    """

    steps: type[StrEnum]
    update: StrEnum
    member: Callable[[Institution, Turn], Member]
    gathering: Callable[[ParameterServer, int], Gathering]
    delivery: Delivery = Direct

    @property
    def names(self) -> Sequence[str]:
        """The steps' names, in order."""
        return tuple(step.value for step in self.steps)

    @property
    def remembers(self) -> bool:
        """Whether a member's later steps need what its earlier ones did."""
        return len(self.steps) > 1


def as_step(steps: type[S], step: str) -> S:
    """Return a mode's step by its name.

    Raises:
        ProtocolError: There is none of that name.
    """
    try:
        return steps(step)
    except ValueError:
        raise ProtocolError(f"no step {step!r} in this round; there are {list(steps)}") from None
