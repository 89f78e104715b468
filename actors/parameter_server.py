"""The actor that holds the global weights and the server's state."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import cast

from actors.refs import Messages, States
from fedfuse_ray.blocks import Blocks
from fedfuse_ray.errors import NotReadyError
from fedfuse_ray.federation.checkpoints import checkpoint as checkpoints
from fedfuse_ray.federation.checkpoints.checkpoint import Checkpoint
from fedfuse_ray.federation.messages.downlink import Broadcast
from fedfuse_ray.federation.messages.records import Carried
from fedfuse_ray.federation.modes.exchange import Answer
from fedfuse_ray.federation.modes.outcome import Closed
from fedfuse_ray.federation.modes.sides import ServerSide
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.server.server import ParameterServer

Wanted = Sequence[Collection[str]]
"""Whose messages are wanted of each list."""


class ParameterServerActor:
    """Delegates to `ServerSide`; needs numpy only, so it starts at once.

    Args:
        plan: The federation's plan.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._running: ServerSide | None = None
        self._states: States = {}
        self._carried: Mapping[str, Carried[bytes]] = {}

    def __repr__(self) -> str:
        return "parameter server"

    def ready(self) -> int:
        """Answer once the actor is up, with its process id."""
        return os.getpid()

    def initialise(self, weights: Blocks) -> None:
        """Start before the first round from the given weights."""
        self._begin(Checkpoint(0, dict(weights)))

    def restore(self, path: str) -> None:
        """Continue from a checkpoint."""
        self._begin(checkpoints.read(Path(path)))

    def _begin(self, checkpoint: Checkpoint) -> None:
        self._running = ServerSide(self._plan, checkpoint)
        self._states = dict(checkpoint.institutions)
        self._carried = checkpoint.carried

    def states(self, names: list[str]) -> States:
        """Return the states that institutions had at the last checkpoint."""
        return {name: self._states[name] for name in names if name in self._states}

    def carried(self) -> Mapping[str, Carried[bytes]]:
        """Return the updates that were on their way at the last checkpoint."""
        return self._carried

    def begin(self, attempt: int, epoch: int) -> tuple[Broadcast, int]:
        """Begin the next round; returns what institutions need for it, and the last round."""
        return self._server.begin(attempt, epoch), self._server.round

    def release(self) -> tuple[Blocks, int]:
        """Return the model to be scored, and the last round."""
        return self._server.model(), self._server.round

    def close(
        self, step: str, round: int, names: Wanted, *sent: Messages
    ) -> tuple[Answer | None, tuple[bool, tuple[str, ...]]]:
        """Close a step; returns the answer, whether the round goes on, and with whom."""
        answer = self._side.close(step, round, _picked(names, sent))
        return answer, (answer is not None, self._side.survivors)

    def finish(self, round: int, names: Wanted, *sent: Messages) -> Closed:
        """Close the last step of a round, and step along what it gave."""
        return self._side.finish(round, _picked(names, sent))

    def lost(self, round: int) -> Closed:
        """End a round of which too little is left."""
        return self._side.lost(round)

    def save(
        self,
        folder: str,
        carried: dict[str, Carried[None]],
        names: Wanted,
        *objects: Messages | States,
    ) -> str:
        """Write a checkpoint.

        Args:
            folder: Where it goes.
            carried: Updates on their way, by institution, without their bytes.
            names: Whose bytes lie in which list of updates.
            *objects: The lists of updates, then what the institutions of each actor keep.
        """
        updates = cast("Sequence[Messages]", objects[: len(names)])
        for state in cast("Sequence[States]", objects[len(names) :]):
            self._states |= state
        sent = dict(_picked(names, updates))
        whole = {who: Carried(c.flight, c.record, bytes(sent[who])) for who, c in carried.items()}
        checkpoint = self._server.checkpoint(self._states, whole)
        return str(checkpoints.save(Path(folder), checkpoint))

    def noise_factor(self) -> float:
        """Return the factor on the next round's noise."""
        return self._server.state.released.factor

    def sha256(self) -> str:
        """Return the digest of the global weights."""
        return self._server.sha256()

    def block_sizes(self) -> dict[str, int]:
        """Return the number of parameters of each block."""
        return dict(self._server.sizes)

    @property
    def _side(self) -> ServerSide:
        if self._running is None:
            raise NotReadyError("the parameter server was not initialised")
        return self._running

    @property
    def _server(self) -> ParameterServer:
        return self._side.server


def _picked(names: Wanted, sent: Sequence[Messages]) -> list[tuple[str, memoryview]]:
    """Return what the institutions named for each list sent."""
    return [
        (name, data.data)
        for wanted, messages in zip(names, sent, strict=True)
        for name, data in messages
        if name in wanted
    ]
