"""The two sides of a federation as executors hold them, whichever mode its rounds have."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fedfuse_ray.errors import NotReadyError
from fedfuse_ray.federation.checkpoints.checkpoint import Checkpoint
from fedfuse_ray.federation.institution.blame import blamed
from fedfuse_ray.federation.messages.records import Reply
from fedfuse_ray.federation.modes import mode_of
from fedfuse_ray.federation.modes.exchange import (
    Answer,
    Gathering,
    Member,
    Messages,
    Turn,
    as_step,
)
from fedfuse_ray.federation.modes.outcome import Closed
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.server.server import ParameterServer

if TYPE_CHECKING:  # torch: the server does without
    from fedfuse_ray.federation.institution.institution import Institution


class InstitutionSide:
    """An institution in the rounds of a federation.

    Args:
        institution: The institution.
    """

    def __init__(self, institution: Institution) -> None:
        self.institution = institution
        self._mode = mode_of(institution.plan)
        self._round = 0
        self._member: Member | None = None

    def take(self, step: str, turn: Turn) -> Reply:
        """Take one step of a round.

        An institution whose update is late on the virtual clock sends nothing from then on, and
        keeps its state. Each step is taken once. A round that was cut off starts again from the
        first step, with the same keys, noise and update.

        Args:
            step: One of the mode's steps, in order.
            turn: What it is given.

        Raises:
            ProtocolError: The mode has no such step.
            NotReadyError: The round was begun by a process that is gone.
            InstitutionError: Anything else that went wrong, with the traceback.
        """
        as_step(self._mode.steps, step)  # whoever asks for another is to blame, not who is asked
        name = self.institution.name
        with blamed(name, turn.round):
            if step == self._mode.names[0]:
                self._round, self._member = turn.round, self._mode.member(self.institution, turn)
            if self._round != turn.round:
                raise NotReadyError(f"{name} has not begun round {turn.round}")
            if self._member is None:
                return Reply()
            reply = self._member.take(step, turn)
        if reply.record is None or not reply.record.late:
            return reply
        self._member = None
        return Reply(record=replace(reply.record, uplink_bytes=0))


class ServerSide:
    """The parameter server in the rounds of a federation.

    Args:
        plan: The federation's plan.
        checkpoint: Where to go on from.
    """

    def __init__(self, plan: Plan, checkpoint: Checkpoint) -> None:
        self.server = ParameterServer(plan, checkpoint)
        self._mode = mode_of(plan)
        self._gathering: Gathering | None = None

    def close(self, step: str, round: int, messages: Messages) -> Answer | None:
        """Close a step before the last, and answer; None says that the round is lost.

        Raises:
            ProtocolError: `round` is not the next one, or there is no such step.
            NotReadyError: The round was begun by a process that is gone.
        """
        as_step(self._mode.steps, step)
        return self._gathered(step, round).close(step, messages)

    @property
    def survivors(self) -> tuple[str, ...]:
        """Whose updates will be in the sums of the round that goes on, once that is settled."""
        return self._gathering.survivors if self._gathering else ()

    def finish(self, round: int, messages: Messages) -> Closed:
        """Take the messages of the last step, and let the server step."""
        closed = self._gathered(self._mode.names[-1], round).finish(messages)
        self._gathering = None
        return closed

    def lost(self, round: int) -> Closed:
        """End a round that is lost."""
        closed = self._gathered("", round).lost()
        self._gathering = None
        return closed

    def _gathered(self, step: str, round: int) -> Gathering:
        self.server.follows(round)
        if step == self._mode.names[0]:
            self._gathering = self._mode.gathering(self.server, round)
        if self._gathering is None:
            raise NotReadyError(f"the server has not begun round {round}")
        return self._gathering
