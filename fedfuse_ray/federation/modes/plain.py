"""A plain round: every institution sends its update as one message, which the server reads."""

from __future__ import annotations

import time
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING

from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.federation.messages import wire
from fedfuse_ray.federation.messages.records import Reply, with_payload
from fedfuse_ray.federation.messages.updates import Kept
from fedfuse_ray.federation.modes.exchange import Answer, Messages, Mode, Turn, as_step
from fedfuse_ray.federation.modes.outcome import Closed
from fedfuse_ray.federation.plan.paradigms import is_pooled
from fedfuse_ray.federation.server.server import Aggregation, ParameterServer

if TYPE_CHECKING:  # torch: the server does without
    from fedfuse_ray.federation.institution.institution import Institution


class PlainStep(StrEnum):
    """The one step."""

    TRAIN = "train"


class PlainMember:
    """An institution's side.

    Args:
        institution: Whose side.
        turn: The first turn.
    """

    def __init__(self, institution: Institution, turn: Turn) -> None:
        self._institution = institution

    def take(self, step: str, turn: Turn) -> Reply:
        """Train for the round's local epochs and return the update, encoded."""
        as_step(PlainStep, step)
        began = time.perf_counter()
        me, plan, coding = self._institution, self._institution.plan, self._institution.plan.coding
        received = me.receive(turn.broadcast, turn.behind)
        result = me.train(turn.round, received, turn.kept.controls)
        update = plan.transforms.sent(result.update, me.name, turn.round).on_wire()
        payloads, memory = coding.encode(
            update, turn.kept.memory, turn.round, me.name, received.released.settings
        )
        sizes = {name: vector.size for name, vector in update.items()}
        message = wire.pack(
            wire.Message(
                institution=me.name,
                round=turn.round,
                codec=coding.config.codec,
                blocks=payloads,
                sizes=sizes,
                steps=result.steps,
                loss=result.loss if plan.weighs_by_loss else None,
            )
        )
        if is_pooled(plan.experiment):
            # The pool's holder keeps its own model: nothing of this crosses a network.
            record = me.record(result, turn.round, 0, 0, began)
        else:
            record = me.record(result, turn.round, received.nbytes, len(message), began)
            record = with_payload(record, {n: len(p) for n, p in payloads.items()}, sizes)
        return Reply(message, record, Kept(result.controls, memory))


class PlainGathering:
    """The server's side.

    An update that is altered, from another round, from a stranger, in another's name, or sent twice
    is refused and reported; the others go on.

    Args:
        server: Whose side.
        round: From 1.
    """

    def __init__(self, server: ParameterServer, round: int) -> None:
        self._server, self._round = server, round

    survivors: tuple[str, ...] = ()

    def close(self, step: str, messages: Messages) -> Answer | None:
        """There is no step before the last."""
        raise ProtocolError(f"the step {step!r} has no answer in a plain round")

    def finish(self, messages: Messages) -> Closed:
        """Check, sum in participants' order, and step.

        Raises:
            ProtocolError: No update was left to aggregate.
        """
        server = self._server
        checked: dict[str, wire.Message] = {}
        sizes: dict[str, int] = {}
        refused: list[tuple[str, str]] = []
        for sender, data in messages:
            try:
                message = wire.unpack(data)
                if sender != message.institution:
                    raise ProtocolError(f"sent an update in the name of {message.institution}")
                server.check(message, self._round, checked)
            except ProtocolError as error:
                refused.append((sender, str(error)))
                continue
            checked[sender], sizes[sender] = message, len(data)
        total = server.add_up(checked, self._round)
        refused += total.refused
        if refused and not total.accepted:
            raise ProtocolError(
                f"round {self._round} received no update that could be accepted: {refused}"
            )
        state = server.state
        if server.plan.asynchronous:
            rounds = {name: checked[name].round for name in total.accepted}
            state = replace(state, used={**state.used, **rounds})
        server.step(self._round, total, state)
        return Closed(Aggregation({n: sizes[n] for n in total.accepted}, tuple(refused)))

    def lost(self) -> Closed:
        """A plain round is never lost."""
        raise ProtocolError("a plain round ends with its one step")


MODE = Mode(steps=PlainStep, update=PlainStep.TRAIN, member=PlainMember, gathering=PlainGathering)
