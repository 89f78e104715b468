"""The actor that holds the global weights between rounds."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from fedfuse_ray.blocks import Blocks
from fedfuse_ray.errors import NotReadyError
from fedfuse_ray.federation.checkpoints import checkpoint as checkpoints
from fedfuse_ray.federation.checkpoints.checkpoint import Checkpoint
from fedfuse_ray.federation.messages.downlink import Broadcast
from fedfuse_ray.federation.modes.buffered import Carried
from fedfuse_ray.federation.modes.masked import Answer, Exchange, Revealed
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.server.server import Aggregation, Server

SecureOutcome = tuple[dict[str, dict[str, Exchange]], tuple[str, ...]]
"""Lengths of all messages by step and institution, and who dropped out."""

Messages = list[tuple[str, npt.NDArray[np.uint8]]]


class ParameterServerActor:
    """Delegates to `Server`; needs numpy only, so it starts at once.

    Args:
        plan: The federation's plan.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._server: Server | None = None
        self._states: dict[str, Blocks] = {}
        self._carried: dict[str, Carried] = {}

    def __repr__(self) -> str:
        return "parameter server"

    def ready(self) -> int:
        """Answer once the actor is up, with its process id."""
        return os.getpid()

    def initialise(self, weights: Blocks) -> None:
        """Start before the first round from the given weights."""
        self._server = Server(self._plan, Checkpoint(0, dict(weights)))
        self._states = {}
        self._carried = {}

    def restore(self, path: str) -> None:
        """Continue from a checkpoint."""
        checkpoint = checkpoints.read(Path(path))
        self._server = Server(self._plan, checkpoint)
        self._states = dict(checkpoint.institutions)
        self._carried = dict(checkpoint.carried)

    def states(self, names: list[str]) -> dict[str, Blocks]:
        """Return the states that institutions had at the last checkpoint."""
        return {name: self._states[name] for name in names if name in self._states}

    def carried(self) -> dict[str, Carried]:
        """Return the updates that were on their way at the last checkpoint."""
        return self._carried

    def broadcast(self) -> tuple[Broadcast, int]:
        """Return what institutions need for the next round, and the last round."""
        return self._running.broadcast(), self._running.round

    def release(self) -> tuple[Blocks, int]:
        """Return the model to be scored, and the last round."""
        return self._running.released(), self._running.round

    def secure_step(self, step: str, round: int, *messages: Messages) -> tuple[Answer | None, bool]:
        """Close one step of a secure round; returns the answer, and whether the round goes on."""
        answer = self._running.secure_step(step, round, _flat(messages))
        return answer, answer is not None

    def reveal(self, round: int, *messages: Messages) -> tuple[Revealed, SecureOutcome]:
        """Close the last step of a secure round; returns the sums, and what the driver may see."""
        revealed = self._running.reveal(round, _flat(messages))
        return revealed, (revealed.traffic, revealed.dropouts)

    def lost(self, round: int) -> tuple[Revealed, SecureOutcome]:
        """End a secure round of which too few members are left."""
        revealed = self._running.lost(round)
        return revealed, (revealed.traffic, revealed.dropouts)

    def aggregate_revealed(self, round: int, revealed: Revealed) -> Aggregation:
        """Step along a secure round's sums."""
        return self._running.aggregate_revealed(round, revealed)

    def aggregate(
        self, round: int, names: Sequence[Collection[str]], *updates: Messages
    ) -> Aggregation:
        """Aggregate what the named institutions sent: `names[i]` of the i-th list of updates."""
        return self._running.aggregate(round, _picked(names, updates))

    def save(
        self,
        folder: str,
        carried: dict[str, Carried],
        names: Sequence[Collection[str]],
        *objects: dict[str, Blocks] | Messages,
    ) -> str:
        """Write a checkpoint.

        Args:
            folder: Where it goes.
            carried: Updates on their way, by institution, without their bytes.
            names: Whose bytes lie in which list of updates.
            *objects: The lists of updates, then the hosts' states.
        """
        updates = cast("Sequence[Messages]", objects[: len(names)])
        for state in objects[len(names) :]:
            self._states |= cast("dict[str, Blocks]", state)
        sent = dict(_picked(names, updates))
        whole = {who: replace(c, payload=bytes(sent[who])) for who, c in carried.items()}
        return str(checkpoints.save(Path(folder), self._running.checkpoint(self._states, whole)))

    def noise_factor(self) -> float:
        """Return the factor on the next round's noise."""
        return self._running.noise_factor

    def sha256(self) -> str:
        """Return the digest of the global weights."""
        return self._running.sha256()

    def block_sizes(self) -> dict[str, int]:
        """Return the number of parameters of each block."""
        return {name: vector.size for name, vector in self._running.weights.items()}

    @property
    def _running(self) -> Server:
        if self._server is None:
            raise NotReadyError("the parameter server was not initialised")
        return self._server


def _flat(messages: Sequence[Messages]) -> list[tuple[str, memoryview]]:
    return [(name, data.data) for host in messages for name, data in host]


def _picked(
    names: Sequence[Collection[str]], updates: Sequence[Messages]
) -> list[tuple[str, memoryview]]:
    """Return what the institutions named for each list sent; nothing of those that were late."""
    return [
        (name, data.data)
        for wanted, messages in zip(names, updates, strict=True)
        for name, data in messages
        if name in wanted and data.size
    ]
