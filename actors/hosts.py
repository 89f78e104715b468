"""The driver's calls to the hosts of institutions, whose processes may die.

Every wait has a deadline, and every failure names the institution or the host that failed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import ray

from actors.cluster import LOST, wait
from actors.packing import Host
from actors.refs import Ref
from fedfuse_ray.errors import (
    DeadlineError,
    FedfuseError,
    InstitutionError,
    NotReadyError,
    RestartError,
)

ATTEMPTS = 8
PAUSE_SECONDS = 0.2
_NAMED = 5

T = TypeVar("T")


@dataclass(frozen=True)
class Deadline:
    """When a wait ends.

    Attributes:
        seconds: How long it may take in all.
        at: The end, on the clock of `time.monotonic`.
        setting: What a user sets to allow more.
    """

    seconds: float
    at: float
    setting: str

    @classmethod
    def after(cls, seconds: float, setting: str) -> Deadline:
        """Return the deadline so many seconds from now."""
        return cls(seconds, time.monotonic() + seconds, setting)

    @property
    def left(self) -> float:
        """Seconds until then, at least 0."""
        return max(0.0, self.at - time.monotonic())

    def missed(self, what: str, who: str) -> DeadlineError:
        """Return the error of whoever has not answered in time."""
        return DeadlineError(
            f"{what}: no answer within {self.seconds:g} s from {who}; "
            f"if that was not long enough, raise execution.{self.setting}"
        )


def fetch(ref: Ref[T], what: str, who: str, deadline: Deadline) -> T:
    """Return what a reference holds.

    Raises:
        DeadlineError: It is not there in time.
        RestartError: Something that the call was given is lost.
        FedfuseError: What the project raised over there.
        InstitutionError: Anything else that was raised there, with its traceback.
    """
    try:
        found: T = ray.get(ref, timeout=deadline.left)
        return found
    except ray.exceptions.GetTimeoutError:
        raise deadline.missed(what, who) from None
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, LOST):
            raise RestartError(f"{what}: what {who} was given is lost: {cause}") from None
        if isinstance(cause, FedfuseError):
            raise cause from None
        raise InstitutionError(who, str(error)) from None


class Hosts:
    """The actors that institutions live in.

    Args:
        layout: Who lives where.
        actors: The actors by name.
        startup_seconds: How long an actor may take to be up, the first time and again.
    """

    def __init__(
        self, layout: Sequence[Host], actors: Mapping[str, Any], startup_seconds: float
    ) -> None:
        self.layout, self.actors = tuple(layout), dict(actors)
        self._startup_seconds = startup_seconds

    def ready(self) -> None:
        """Wait until all are up."""
        deadline = Deadline.after(self._startup_seconds, "startup_seconds")
        self.call(
            lambda host: self.actors[host].ready.options(name=f"start: {host}").remote(),
            "start-up",
            deadline,
        )

    def call(
        self, call: Callable[[str], Ref[T]], what: str, deadline: Deadline, *, again: bool = True
    ) -> dict[str, T]:
        """Call every host; returns the answers by host.

        Args:
            call: Makes the call to a named host and returns a reference to its answer.
            what: What is asked, for messages.
            deadline: When all have to have answered.
            again: Whether to repeat a call whose process died, once it is up; otherwise the first
                death ends the calls.

        Raises:
            RestartError: A process died and `again` is off, or what it was given is lost.
            InstitutionError: A process died time and again, or stays away.
        """
        waiting = {call(host.name): host.name for host in self.layout}
        deaths = dict.fromkeys(self.actors, 0)
        answers: dict[str, T] = {}
        while waiting:
            ready = wait(list(waiting), deadline.at)
            if not ready:
                raise deadline.missed(what, self.residents(waiting.values()))
            for ref in ready:
                host = waiting.pop(ref)
                try:
                    answers[host] = fetch(ref, what, self.residents([host]), deadline)
                except LOST as error:
                    if not again:
                        raise RestartError(f"{what}: {host} was lost: {error}") from None
                    deaths[host] += 1
                    self.revive(host, deaths[host], error)
                    waiting[call(host)] = host
        return answers

    def revive(self, host: str, deaths: int, error: Exception) -> None:
        """Wait until a host whose process died is up again.

        Raises:
            InstitutionError: It died too often, or is not up again in time.
        """
        who = self.residents([host])
        if deaths >= ATTEMPTS:
            raise InstitutionError(who, f"its process died {deaths} times; last: {error}")
        deadline = Deadline.after(self._startup_seconds, "startup_seconds")
        while deadline.left:
            time.sleep(PAUSE_SECONDS)
            try:
                fetch(self.actors[host].ready.remote(), f"restart of {host}", who, deadline)
                return
            except ray.exceptions.ActorDiedError as died:  # Not to be started again.
                raise InstitutionError(who, f"its process died for good: {died}") from None
            except (*LOST, RestartError, NotReadyError):
                continue
            except DeadlineError:
                break
        raise InstitutionError(
            who,
            f"its process died and is not up again after {deadline.seconds:g} s "
            f"(execution.{deadline.setting}); the cluster may have no room for it: {error}",
        )

    def residents(self, hosts: Iterable[str]) -> str:
        """Return the names of the institutions that live in some hosts, the first few of them."""
        wanted = set(hosts)
        names = [n for h in self.layout if h.name in wanted for n in h.participants]
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return ", ".join(names[:_NAMED]) + more
