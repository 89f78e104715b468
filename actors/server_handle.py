"""The driver's calls to the parameter server, each with a deadline.

A server that dies raises `RestartError`, and so does one that was started again and has no state
yet: the executor then goes back to the last checkpoint and repeats the round, identically.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from actors.cluster import LOST
from actors.hosts import Deadline, fetch
from actors.refs import Messages, Ref, States
from fedfuse_ray.blocks import Blocks
from fedfuse_ray.errors import FedfuseError, InstitutionError, NotReadyError, RestartError
from fedfuse_ray.federation.messages.downlink import Broadcast
from fedfuse_ray.federation.messages.records import Carried
from fedfuse_ray.federation.modes.delivery import Sent
from fedfuse_ray.federation.modes.exchange import Answer
from fedfuse_ray.federation.modes.outcome import Closed

_SERVER = "the parameter server"

T = TypeVar("T")


class ServerHandle:
    """Calls one parameter-server actor.

    Args:
        actor: The actor; Ray's handles have no types.
        seconds: Deadline of a call.
    """

    def __init__(self, actor: Any, seconds: float) -> None:
        self.actor = actor
        self._seconds = seconds

    def load(self, path: Path | None, initial: Ref[Blocks] | None) -> None:
        """Set the server to a checkpoint, or to the referenced initial weights."""
        actor = self.actor
        done: Ref[None] = (
            actor.restore.remote(str(path)) if path else actor.initialise.remote(initial)
        )
        self._get(done)

    def states(self, names: Sequence[str]) -> Ref[States]:
        """Return a reference to the named institutions' states in the loaded checkpoint."""
        states: Ref[States] = self.actor.states.options(name="institutions' states").remote(
            list(names)
        )
        return states

    def carried(self) -> Mapping[str, Carried[bytes]]:
        """Return the updates that were on their way at the loaded checkpoint."""
        known: Ref[Mapping[str, Carried[bytes]]] = self.actor.carried.remote()
        return self._get(known)

    def begin(self, attempt: int, epoch: int) -> Ref[Broadcast]:
        """Begin the next round; returns a reference to what institutions need for it."""
        # The second answer says that the first, which stays where it is, is there.
        broadcast: Ref[Broadcast]
        task = self.actor.begin.options(name="broadcast", num_returns=2)
        broadcast, there = task.remote(attempt, epoch)
        self._get(there, "broadcast")
        return broadcast

    def release(self) -> Ref[Blocks]:
        """Return a reference to the model that is to be scored."""
        model: Ref[Blocks]
        model, there = self.actor.release.options(name="release", num_returns=2).remote()
        self._get(there, "release")
        return model

    def close(
        self, step: str, round: int, sent: Sent[Ref[Messages]]
    ) -> tuple[Ref[Answer] | None, tuple[str, ...]]:
        """Have the server close a step of a round; returns a reference to its answer.

        None says that too little is left of the round. With it comes whose updates will be in the
        sums, once that is settled.
        """
        names, messages = _apart(sent)
        answer: Ref[Answer]
        task = self.actor.close.options(name=step, num_returns=2)
        answer, goes_on = task.remote(step, round, names, *messages)
        on, survivors = self._get(goes_on, f"round {round}: {step}")
        return answer if on else None, survivors

    def finish(self, round: int, sent: Sent[Ref[Messages]]) -> Closed:
        """Have the server close the last step, and step along what it gave."""
        names, messages = _apart(sent)
        task = self.actor.finish.options(name="aggregate")
        closed: Ref[Closed] = task.remote(round, names, *messages)
        return self._get(closed, f"round {round}: aggregate")

    def lost(self, round: int) -> Closed:
        """Have the server end a round of which too little is left."""
        closed: Ref[Closed] = self.actor.lost.options(name="lost").remote(round)
        return self._get(closed, f"round {round}: lost")

    def save(
        self,
        folder: Path,
        states: Sequence[Ref[States]],
        carried: Mapping[str, Carried[Ref[Messages]]],
    ) -> Path:
        """Have the server write a checkpoint; returns where it is.

        Args:
            folder: Where it goes.
            states: References to the hosts' states.
            carried: Updates on their way.
        """
        bare = {who: Carried(c.flight, c.record, None) for who, c in carried.items()}
        names = [[who] for who in carried]
        updates = [c.payload for c in carried.values()]
        task = self.actor.save.options(name="checkpoint")
        saved: Ref[str] = task.remote(str(folder), bare, names, *updates, *states)
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

    def _get(self, ref: Ref[T], what: str = "checkpoint's state") -> T:
        deadline = Deadline.after(self._seconds, "round_seconds")
        try:
            return fetch(ref, what, _SERVER, deadline)
        except (*LOST, NotReadyError) as error:
            raise RestartError(f"{what}: {_SERVER} was lost: {error}") from None
        except InstitutionError as error:
            raise FedfuseError(f"{_SERVER} failed in {what}:\n{error.traceback}") from None


def _apart(sent: Sent[Ref[Messages]]) -> tuple[list[list[str]], list[Ref[Messages]]]:
    """Return whose messages are wanted of each list, and the references to the lists.

    Ray resolves references only where they are arguments by themselves.
    """
    return [list(names) for _, names in sent], [messages for messages, _ in sent]
