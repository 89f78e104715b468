"""The actor that holds the global weights between rounds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedfuse_ray.blocks import Blocks
from fedfuse_ray.errors import NotReadyError
from fedfuse_ray.federation import checkpoint as checkpoints
from fedfuse_ray.federation.checkpoint import Checkpoint
from fedfuse_ray.federation.plan import Plan
from fedfuse_ray.federation.secure_round import Answer, Revealed
from fedfuse_ray.federation.server import Aggregation, Server

SecureOutcome = tuple[dict[str, int], tuple[str, ...]]
"""Bytes sent by each institution, and who dropped out."""


class ParameterServerActor:
    """Delegates to `Server`; needs numpy only, so it starts at once.

    Args:
        plan: The federation's plan.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._server: Server | None = None
        self._states: dict[str, Blocks] = {}

    def __repr__(self) -> str:
        return "parameter server"

    def ready(self) -> int:
        """Answer once the actor is up, with its process id."""
        return os.getpid()

    def initialise(self, weights: Blocks) -> None:
        """Start before the first round from the given weights."""
        self._server = Server(self._plan, Checkpoint(0, dict(weights)))
        self._states = {}

    def restore(self, path: str) -> None:
        """Continue from a checkpoint."""
        checkpoint = checkpoints.read(Path(path))
        self._server = Server(self._plan, checkpoint)
        self._states = dict(checkpoint.institutions)

    def states(self, names: list[str]) -> dict[str, Blocks]:
        """Return the states that institutions had at the last checkpoint."""
        return {name: self._states[name] for name in names if name in self._states}

    def broadcast(self) -> tuple[Blocks, int]:
        """Return what institutions need for the next round, and the last round."""
        return self._running.broadcast(), self._running.round

    def release(self) -> tuple[Blocks, int]:
        """Return the model to be scored, and the last round."""
        return self._running.released(), self._running.round

    def secure_step(
        self, step: str, round: int, *messages: list[tuple[str, npt.NDArray[np.uint8]]]
    ) -> tuple[Answer, int]:
        """Close one step of a secure round; returns the answer to the members, and the round."""
        return self._running.secure_step(step, round, _flat(messages)), round

    def reveal(
        self, round: int, *messages: list[tuple[str, npt.NDArray[np.uint8]]]
    ) -> tuple[Revealed, SecureOutcome]:
        """Close the last step of a secure round; returns the sums, and what the driver may see."""
        revealed = self._running.reveal(round, _flat(messages))
        return revealed, (revealed.uplink_bytes, revealed.dropouts)

    def aggregate_revealed(self, round: int, revealed: Revealed) -> Aggregation:
        """Step along a secure round's sums."""
        return self._running.aggregate_revealed(round, revealed)

    def aggregate(self, round: int, *payloads: list[npt.NDArray[np.uint8]]) -> Aggregation:
        """Aggregate the payloads of all hosts."""
        flat = [payload.data for host in payloads for payload in host]
        return self._running.aggregate(round, flat)

    def save(self, folder: str, *states: dict[str, Blocks]) -> str:
        """Write a checkpoint with the institutions' states."""
        for state in states:
            self._states |= state
        return str(checkpoints.save(Path(folder), self._running.checkpoint(self._states)))

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


def _flat(
    messages: Sequence[list[tuple[str, npt.NDArray[np.uint8]]]],
) -> list[tuple[str, memoryview]]:
    return [(name, data.data) for host in messages for name, data in host]
