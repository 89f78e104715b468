"""The driver's hold on the parameter server: each call answers, also when the server dies.

The server's state after a round is the last checkpoint plus that round's payloads, which lie in
Ray's object store; a server that was started again is brought there and asked again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from actors.cluster import ACTOR_LOST
from fedfuse_ray.errors import DeadlineError, FedfuseError, NotReadyError, RestartError
from fedfuse_ray.federation.buffered import Carried
from fedfuse_ray.federation.server import Aggregation

_ATTEMPTS = 8
_PAUSE_SECONDS = 0.2


class ServerHandle:
    """Calls one parameter-server actor.

    Args:
        actor: The actor.
        seconds: Deadline of a call.
    """

    def __init__(self, actor: Any, seconds: float) -> None:
        self.actor = actor
        self._seconds = seconds
        self._checkpoint: Path | None = None
        self._initial: Any = None
        self._pending: Callable[[], Any] | None = None
        self._aggregated = False
        self._broadcast: Any = None
        self._released: Any = None

    def load(self, path: Path | None, initial: Any) -> None:
        """Set the server to a checkpoint, or to the referenced initial weights."""
        self._checkpoint, self._initial = path, initial
        self._pending, self._aggregated, self._broadcast = None, False, None
        self._call(self._set_state, "load")

    def states(self, names: Sequence[str]) -> Any:
        """Return a reference to the named institutions' states in the loaded checkpoint."""
        return self.actor.states.options(name="institutions' states").remote(list(names))

    def carried(self) -> Any:
        """Return the updates that were on their way at the loaded checkpoint."""
        return self._call(lambda: self.actor.carried.remote(), "updates on their way")

    def broadcast(self) -> Any:
        """Return a reference to the blocks that institutions need; the same one within a round."""
        if self._broadcast is None:
            self._call(self._ask_broadcast, "broadcast")
        return self._broadcast

    def release(self) -> Any:
        """Return a reference to the model that is to be scored."""
        self._call(self._ask_release, "release")
        return self._released

    def aggregate(self, round: int, updates: Mapping[Any, Sequence[str]]) -> Aggregation:
        """Have the server aggregate updates.

        Args:
            round: From 1.
            updates: Reference to a list of updates, to the institutions whose are wanted of it.
        """
        task = self.actor.aggregate.options(name=f"round {round}: aggregate")
        names = list(updates.values())
        return self._aggregate(lambda: task.remote(round, names, *updates), round)

    def aggregate_revealed(self, round: int, revealed: Any) -> Aggregation:
        """Have the server step along a secure round's referenced sums."""
        task = self.actor.aggregate_revealed.options(name=f"round {round}: aggregate")
        return self._aggregate(lambda: task.remote(round, revealed), round)

    def secure_step(self, step: str, round: int, messages: list[Any]) -> Any | None:
        """Have the server close a step of a secure round; returns a reference to its answer.

        None says that too few members are left.

        Raises:
            RestartError: The server died; the round has to begin anew.
        """
        task = self.actor.secure_step.options(name=f"round {round}: {step}", num_returns=2)
        answer, closed = task.remote(step, round, *messages)
        return answer if self._get_once(closed, step) else None

    def reveal(self, round: int, messages: list[Any]) -> tuple[Any, Any]:
        """Have the server close the last step; returns a reference to the sums, and the outcome.

        Raises:
            RestartError: The server died; the round has to begin anew.
        """
        task = self.actor.reveal.options(name=f"round {round}: reveal", num_returns=2)
        revealed, outcome = task.remote(round, *messages)
        return revealed, self._get_once(outcome, "reveal")

    def lost(self, round: int) -> tuple[Any, Any]:
        """End a secure round of which too few members are left; answers as `reveal` does."""
        task = self.actor.lost.options(name=f"round {round}: lost", num_returns=2)
        revealed, outcome = task.remote(round)
        return revealed, self._get_once(outcome, "lost")

    def save(
        self,
        folder: Path,
        states: Sequence[Any],
        carried: dict[str, Carried],
        updates: Mapping[Any, Sequence[str]],
    ) -> None:
        """Have the server write a checkpoint, from which it can be brought back.

        Args:
            folder: Where it goes.
            states: References to the hosts' states.
            carried: Updates on their way, without their bytes.
            updates: References to the lists that hold these, and whose.
        """
        task, names = self.actor.save.options(name="checkpoint"), list(updates.values())
        path = self._call(
            lambda: task.remote(str(folder), carried, names, *updates, *states), "checkpoint"
        )
        self._checkpoint, self._pending, self._aggregated = Path(path), None, False

    def sha256(self) -> str:
        """Return the digest of the global weights."""
        return str(self._call(lambda: self.actor.sha256.remote(), "digest"))

    def block_sizes(self) -> dict[str, int]:
        """Return the number of parameters of each block."""
        return dict(self._call(lambda: self.actor.block_sizes.remote(), "block sizes"))

    def _set_state(self) -> Any:
        if self._checkpoint is None:
            return self.actor.initialise.remote(self._initial)
        return self.actor.restore.remote(str(self._checkpoint))

    def _aggregate(self, call: Callable[[], Any], round: int) -> Aggregation:
        self._pending, self._aggregated = call, False
        aggregation: Aggregation = self._call(call, f"round {round}: aggregation")
        self._aggregated, self._broadcast = True, None
        return aggregation

    def _ask_release(self) -> Any:
        task = self.actor.release.options(name="release", num_returns=2)
        self._released, answered = task.remote()
        return answered

    def _get_once(self, ref: Any, what: str) -> Any:
        try:
            return self._get(ref, what)
        except (*ACTOR_LOST, NotReadyError) as error:
            raise RestartError(f"the parameter server was lost in {what}: {error}") from None

    def _ask_broadcast(self) -> Any:
        """Keep the reference to the blocks; the second answer says that they are there."""
        task = self.actor.broadcast.options(name="broadcast", num_returns=2)
        self._broadcast, answered = task.remote()
        return answered

    def _call(self, call: Callable[[], Any], what: str) -> Any:
        for _ in range(_ATTEMPTS):
            try:
                return self._get(call(), what)
            except ACTOR_LOST:
                time.sleep(_PAUSE_SECONDS)
                with contextlib.suppress(*ACTOR_LOST):
                    self._revive(what)
            except NotReadyError:
                self._revive(what)
        raise FedfuseError(f"the parameter server died {_ATTEMPTS} times during {what}")

    def _revive(self, what: str) -> None:
        self._get(self._set_state(), what)
        if self._aggregated and self._pending is not None:
            self._get(self._pending(), what)

    def _get(self, ref: Any, what: str) -> Any:
        try:
            return ray.get(ref, timeout=self._seconds)
        except ray.exceptions.GetTimeoutError:
            raise DeadlineError(
                f"{what}: the parameter server did not answer within {self._seconds:g} s "
                "(execution.round_seconds)"
            ) from None
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, FedfuseError):
                raise error.cause from None
            raise FedfuseError(f"the parameter server failed in {what}:\n{error}") from None
