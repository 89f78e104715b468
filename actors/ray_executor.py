"""The executor that runs participants as Ray actors.

Weights and updates move between actors by reference; the driver sees only records of a few bytes.
Actors may die at any time. Hosts keep no state, so a call to one is repeated and gives the
identical answer. Where more is lost (the server, a node with the objects on it, a step of a secure
round), the executor goes back to the last checkpoint and repeats the round: the same release.

Tasks are named by spans of rounds (`task_names`): Ray keeps metrics for every name that it has
seen, in every process, so a new name in every round would leak 0.3 MB a round.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import ray
from ray.util.placement_group import remove_placement_group

from actors.calls import RayCalls
from actors.cluster import LOST, connect, wait
from actors.hosts import ATTEMPTS, PAUSE_SECONDS, Deadline, Hosts, fetch
from actors.refs import Messages, Ref
from actors.starting import Group, check_given, layout_of, reserve, start_actors
from actors.task_names import of_round
from fedfuse_ray.blocks import Blocks
from fedfuse_ray.config import ExecutionConfig
from fedfuse_ray.errors import FedfuseError, NotReadyError, RestartError
from fedfuse_ray.federation.checkpoints.promise import Journal
from fedfuse_ray.federation.messages.metrics import Scores, View
from fedfuse_ray.federation.messages.records import Alone, Carried
from fedfuse_ray.federation.modes.outcome import EVERYONE, Attendance, RoundOutcome
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.rounds.driver import RoundDriver

T = TypeVar("T")


class RayExecutor:
    """Starts hosts and a parameter server, and runs rounds on them.

    Args:
        execution: How actors are laid out, and how long anything may take.
        group: A placement group with a bundle for each actor, if the caller has reserved one; by
            default the executor reserves and frees its own.
    """

    kind = "ray"

    def __init__(self, execution: ExecutionConfig, group: Group = None) -> None:
        self._execution = execution
        self._given = group
        self._group: Group = None
        self._hosts = Hosts((), {}, execution.startup_seconds)
        self._checkpoint: Path | None = None
        self._unsaved: tuple[int, Attendance, int] | None = None
        self._attempts = itertools.count()

    def start(self, plan: Plan, dataset: Path) -> None:
        """Join Ray, check the fit, then bring all actors up.

        Raises:
            ResourceError: The cluster can't hold the federation.
            DeadlineError: The actors were not up in time.
        """
        connect(self._execution)
        self._plan = plan
        layout = layout_of(plan, self._execution)
        if self._given is None:
            self._group = reserve(layout, self._execution)
        else:
            check_given(self._given, layout)
            self._group = self._given
        self._hosts, self._server = start_actors(
            plan, str(dataset), layout, self._group, self._execution
        )
        self._hosts.ready()

    def load(self, path: Path | None, journal: Path | None = None) -> None:
        """Set the server to a checkpoint, or to the seeded initial weights."""
        self._checkpoint, self._unsaved = path, None
        self._journal = Journal(journal)
        self._steadily(self._load, "load")

    def _load(self) -> None:
        path = self._checkpoint
        first = next(iter(self._hosts.actors.values()))
        initial: Ref[Blocks] | None = None
        if path is None:
            initial = first.initial.options(name="initial weights").remote()
        self._server.load(path, initial)
        states = {}
        if path and self._plan.keeps_state:
            known = self._server.states
            states = {host.name: known(host.participants) for host in self._hosts.layout}
        carried: dict[str, Carried[Ref[Messages]]] = {}
        if path and self._plan.asynchronous:
            for who, c in self._server.carried().items():
                update = ray.put([(who, np.frombuffer(c.payload, np.uint8))])
                carried[who] = Carried(c.flight, c.record, update)
        self._calls = RayCalls(
            self._plan,
            self._hosts,
            self._server,
            states,
            self._execution.round_seconds,
            self._attempts,
            self._journal,
        )
        self._driver = RoundDriver(self._plan, self._calls, carried)

    def _steadily(self, work: Callable[[], T], what: str) -> T:
        """Do some work; if a part of the federation is lost, repeat it from the last checkpoint."""
        lost: Exception | None = None
        for _ in range(ATTEMPTS):
            try:
                if lost is not None:
                    time.sleep(PAUSE_SECONDS)
                    self._return()
                return work()
            except (*LOST, NotReadyError, RestartError) as error:
                lost = error
        raise FedfuseError(f"{what}: lost {ATTEMPTS} times; the last time: {lost}")

    def _return(self) -> None:
        """Go back to the last checkpoint, and repeat the round that was finished after it."""
        self._hosts.ready()
        self._load()
        if self._unsaved is not None:
            self._driver.run(*self._unsaved)

    def noise_factor(self) -> float:
        """Return the factor on the next round's noise."""
        return self._steadily(self._server.noise_factor, "noise")

    def train(self, round: int, attendance: Attendance = EVERYONE, epoch: int = 0) -> RoundOutcome:
        """Run one round; an actor that dies is started again and asked again."""
        given = (round, attendance, epoch)
        outcome = self._steadily(lambda: self._driver.run(*given), f"round {round}")
        self._unsaved = given
        return outcome

    def _deadline(self) -> Deadline:
        return Deadline.after(self._execution.round_seconds, "round_seconds")

    def evaluate(self, round: int, views: dict[str, tuple[View, ...]]) -> list[Scores]:
        """Score the global model on all hosts."""
        what = f"evaluation after round {round}"
        span = of_round(round, self._plan.experiment.training.rounds)

        def score() -> dict[str, list[Scores]]:
            weights = self._server.release()

            def call(host: str) -> Ref[list[Scores]]:
                task = self._hosts.actors[host].evaluate.options(name=f"{span}: evaluate {host}")
                scored: Ref[list[Scores]] = task.remote(weights, views)
                return scored

            return self._hosts.call(call, what, self._deadline())

        answers = self._steadily(score, what)
        scores = {s.name: s for answer in answers.values() for s in answer}
        return [scores[name] for name in self._plan.by_name]

    def save(self, folder: Path) -> None:
        """Have the server write a checkpoint."""

        def write() -> Path:
            return self._server.save(
                folder, list(self._calls.states.values()), self._driver.carried
            )

        self._checkpoint = self._steadily(write, "checkpoint")
        self._unsaved = None

    def sha256(self) -> str:
        """Return the digest of the global weights."""
        return self._steadily(self._server.sha256, "digest")

    def block_sizes(self) -> dict[str, int]:
        """Return the number of parameters of each block."""
        return self._steadily(self._server.block_sizes, "block sizes")

    def train_alone(
        self, names: Sequence[str], views: dict[str, tuple[View, ...]]
    ) -> Iterator[Alone]:
        """Train participants side by side, the largest first; yields each as it finishes."""
        where = {name: host.name for host in self._hosts.layout for name in host.participants}
        deaths = dict.fromkeys(names, 0)

        def call(name: str) -> Ref[Alone]:
            actor = self._hosts.actors[where[name]]
            task = actor.train_alone.options(name=f"train alone: {name}")
            trained: Ref[Alone] = task.remote(name, views)
            return trained

        sizes = {name: -self._plan.by_name[name].specimens for name in names}
        waiting = {call(name): name for name in sorted(names, key=lambda name: sizes[name])}
        while waiting:
            deadline = self._deadline()
            done = wait(list(waiting), deadline.at)
            if not done:
                raise deadline.missed("training alone", ", ".join(waiting.values()))
            for ref in done:
                name = waiting.pop(ref)
                try:
                    yield fetch(ref, "training alone", name, deadline)
                except LOST as error:
                    deaths[name] += 1
                    self._hosts.revive(where[name], deaths[name], error)
                    waiting[call(name)] = name

    def close(self) -> None:
        """Stop the actors that this executor started."""
        actors = list(self._hosts.actors.values())
        if actors:
            actors.append(self._server.actor)
        for actor in actors:
            with contextlib.suppress(Exception):
                ray.kill(actor)
        if self._group is not None and self._given is None:
            remove_placement_group(self._group)
        self._hosts, self._group = Hosts((), {}, self._execution.startup_seconds), None
