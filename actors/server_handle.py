"""The driver's hold on the parameter server: what it is asked, with a deadline each time.

A server that dies raises `RestartError`, and so does one that was started again and has no state
yet: the executor then goes back to the last checkpoint and does the round anew, identically.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from actors.cluster import LOST
from actors.hosts import Deadline, fetch
from fedfuse_ray.errors import FedfuseError, InstitutionError, NotReadyError, RestartError
from fedfuse_ray.federation.modes.buffered import Carried
from fedfuse_ray.federation.server.server import Aggregation

_SERVER = "the parameter server"


class ServerHandle:
    """Calls one parameter-server actor.

    Args:
        actor: The actor.
        seconds: Deadline of a call.
    """

    def __init__(self, actor: Any, seconds: float) -> None:
        self.actor = actor
        self._seconds = seconds

    def load(self, path: Path | None, initial: Any) -> None:
        """Set the server to a checkpoint, or to the referenced initial weights."""
        actor = self.actor
        self._get(actor.restore.remote(str(path)) if path else actor.initialise.remote(initial))

    def states(self, names: Sequence[str]) -> Any:
        """Return a reference to the named institutions' states in the loaded checkpoint."""
        return self.actor.states.options(name="institutions' states").remote(list(names))

    def carried(self) -> Any:
        """Return the updates that were on their way at the loaded checkpoint."""
        return self._get(self.actor.carried.remote())

    def broadcast(self) -> Any:
        """Return a reference to the blocks that institutions need for the next round."""
        # The second answer says that the first, which stays where it is, is there.
        blocks, there = self.actor.broadcast.options(name="broadcast", num_returns=2).remote()
        self._get(there, "broadcast")
        return blocks

    def release(self) -> Any:
        """Return a reference to the model that is to be scored."""
        model, there = self.actor.release.options(name="release", num_returns=2).remote()
        self._get(there, "release")
        return model

    def aggregate(self, round: int, updates: Mapping[Any, Sequence[str]]) -> Aggregation:
        """Have the server aggregate updates.

        Args:
            round: From 1.
            updates: Reference to a list of updates, to the institutions whose are wanted of it.
        """
        task, names = self.actor.aggregate.options(name="aggregate"), list(updates.values())
        sent = task.remote(round, names, *updates)
        done: Aggregation = self._get(sent, f"round {round}: aggregate")
        return done

    def aggregate_revealed(self, round: int, revealed: Any) -> Aggregation:
        """Have the server step along a secure round's referenced sums."""
        task = self.actor.aggregate_revealed.options(name="aggregate")
        sent = task.remote(round, revealed)
        done: Aggregation = self._get(sent, f"round {round}: aggregate")
        return done

    def secure_step(self, step: str, round: int, messages: list[Any]) -> Any | None:
        """Have the server close a step of a secure round; returns a reference to its answer.

        None says that too few members are left.
        """
        task = self.actor.secure_step.options(name=step, num_returns=2)
        answer, goes_on = task.remote(step, round, *messages)
        return answer if self._get(goes_on, f"round {round}: {step}") else None

    def reveal(self, round: int, messages: list[Any]) -> tuple[Any, Any]:
        """Have the server close the last step; returns a reference to the sums, and the outcome."""
        task = self.actor.reveal.options(name="reveal", num_returns=2)
        revealed, outcome = task.remote(round, *messages)
        return revealed, self._get(outcome, f"round {round}: reveal")

    def lost(self, round: int) -> tuple[Any, Any]:
        """End a secure round of which too few members are left; answers as `reveal` does."""
        revealed, outcome = self.actor.lost.options(name="lost", num_returns=2).remote(round)
        return revealed, self._get(outcome, f"round {round}: lost")

    def save(
        self,
        folder: Path,
        states: Sequence[Any],
        carried: dict[str, Carried],
        updates: Mapping[Any, Sequence[str]],
    ) -> Path:
        """Have the server write a checkpoint; returns where it is.

        Args:
            folder: Where it goes.
            states: References to the hosts' states.
            carried: Updates on their way, without their bytes.
            updates: References to the lists that hold these, and whose.
        """
        task, names = self.actor.save.options(name="checkpoint"), list(updates.values())
        saved = task.remote(str(folder), carried, names, *updates, *states)
        return Path(self._get(saved, "checkpoint"))

    def noise_factor(self) -> float:
        """Return the factor on the next round's noise."""
        return float(self._get(self.actor.noise_factor.remote(), "noise"))

    def sha256(self) -> str:
        """Return the digest of the global weights."""
        return str(self._get(self.actor.sha256.remote(), "digest"))

    def block_sizes(self) -> dict[str, int]:
        """Return the number of parameters of each block."""
        return dict(self._get(self.actor.block_sizes.remote(), "block sizes"))

    def _get(self, ref: Any, what: str = "checkpoint's state") -> Any:
        deadline = Deadline.after(self._seconds, "round_seconds")
        try:
            return fetch(ref, what, _SERVER, deadline)
        except (*LOST, NotReadyError) as error:
            raise RestartError(f"{what}: {_SERVER} was lost: {error}") from None
        except InstitutionError as error:
            raise FedfuseError(f"{_SERVER} failed in {what}:\n{error.traceback}") from None
