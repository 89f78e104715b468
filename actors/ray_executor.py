"""The executor that runs participants as Ray actors.

Weights and updates move between actors by reference; the driver sees only records of a few bytes.
Actors may die at any time. Hosts keep no state, so a call to one is made again and gives the
identical answer. Where more is lost (the server, a node with the objects on it, a step of a secure
round), the executor goes back to the last checkpoint and does the round anew: the same release.

Tasks are named by what is done and where, not by round: Ray keeps metrics for every name it has
seen, in every process, so that names which never come again are a leak of 0.3 MB a round.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

from actors.cluster import LOST, connect, nodes, wait
from actors.hosts import ATTEMPTS, PAUSE_SECONDS, Deadline, Hosts, fetch
from actors.institution import InstitutionActor
from actors.packing import Host, asks, in_order
from actors.parameter_server import ParameterServerActor
from actors.placement import Request
from actors.remedies import check_fit, own_gpus
from actors.server_handle import ServerHandle
from actors.task_names import of_round
from fedfuse_ray.config import ExecutionConfig
from fedfuse_ray.errors import FedfuseError, NotReadyError, ResourceError, RestartError
from fedfuse_ray.federation.messages.metrics import Scores, View
from fedfuse_ray.federation.messages.records import Alone, TrainRecord
from fedfuse_ray.federation.modes.buffered import Buffered, Carried
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.rounds.executor import RoundOutcome
from fedfuse_ray.federation.rounds.outcomes import buffered_outcome, plain_outcome, secure_outcome
from fedfuse_ray.federation.rounds.timeline import EVERYONE, Attendance

T = TypeVar("T")

_Institution = ray.remote(InstitutionActor)
_ParameterServer = ray.remote(ParameterServerActor)


class RayExecutor:
    """Hosts, a parameter server, and the calls between them.

    Args:
        execution: How actors are laid out, and how long anything may take.
        group: A placement group with a bundle for each actor, where somebody else has reserved
            them; by default the executor reserves and frees its own.
    """

    kind = "ray"

    def __init__(self, execution: ExecutionConfig, group: Any = None) -> None:
        self._execution = execution
        self._given = group
        self._group: Any = None
        self._hosts = Hosts((), {}, execution.startup_seconds)
        self._states: dict[str, Any] = {}
        self._checkpoint: Path | None = None
        self._unsaved: tuple[int, Attendance] | None = None

    def start(self, plan: Plan, dataset: Path) -> None:
        """Join Ray, check the fit, then bring all actors up.

        Raises:
            ResourceError: The cluster can't hold the federation.
            DeadlineError: The actors were not up in time.
        """
        connect(self._execution)
        self._plan = plan
        asked = self._execution
        request = Request(plan.participants, nodes(), asked.institutions_per_actor, asked.placement)
        layout = check_fit(request, own_gpus(plan.experiment))
        # Nodes hand out GPUs in the order of the bundles; the fit was checked in this one.
        bundles = in_order(layout)
        self._group = self._reserve(bundles) if self._given is None else self._check_given(bundles)
        namespace = f"fedfuse-{uuid.uuid4().hex[:8]}"
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        server = _ParameterServer.options(
            name="parameter-server",
            namespace=namespace,
            num_cpus=0,
            max_restarts=-1,
            scheduling_strategy=here,
        ).remote(plan)
        self._server = ServerHandle(server, self._execution.round_seconds)
        actors = {
            host.name: _Institution.options(
                name=host.name,
                namespace=namespace,
                num_cpus=host.num_cpus,
                num_gpus=host.num_gpus,
                max_restarts=-1,
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    self._group, placement_group_bundle_index=index
                ),
            ).remote(host.label, plan, str(dataset), host.participants)
            for index, host in enumerate(bundles)
        }
        self._hosts = Hosts(layout, actors, self._execution.startup_seconds)
        self._hosts.ready()

    def load(self, path: Path | None) -> None:
        """Set the server to a checkpoint, or to the seeded initial weights."""
        self._checkpoint, self._unsaved = path, None
        self._steadily(self._load, "load")

    def _load(self) -> None:
        path = self._checkpoint
        first = next(iter(self._hosts.actors.values()))
        initial = None if path else first.initial.options(name="initial weights").remote()
        self._server.load(path, initial)
        self._states = {}
        if path and self._plan.keeps_state:
            states = self._server.states
            self._states = {h.name: states(h.participants) for h in self._hosts.layout}
        self._buffered = Buffered(self._plan)
        if path and self._plan.asynchronous:
            known = self._server.carried()
            self._buffered.carried = {
                who: replace(c, payload=ray.put([(who, np.frombuffer(c.payload, np.uint8))]))
                for who, c in known.items()
            }

    def _steadily(self, work: Callable[[], T], what: str) -> T:
        """Do something; where a part of the federation is lost, again from the last checkpoint."""
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
        """Go back to the last checkpoint, and do again the round that was finished since."""
        self._hosts.ready()
        self._load()
        if self._unsaved is not None:
            self._round(*self._unsaved)

    def noise_factor(self) -> float:
        """Return the factor on the next round's noise."""
        return self._steadily(self._server.noise_factor, "noise")

    def train(self, round: int, attendance: Attendance = EVERYONE) -> RoundOutcome:
        """Run one round; an actor that dies is started again and asked again."""
        outcome = self._steadily(lambda: self._round(round, attendance), f"round {round}")
        self._unsaved = (round, attendance)
        return outcome

    def _round(self, round: int, attendance: Attendance) -> RoundOutcome:
        if self._plan.steps:
            return self._train_securely(round, attendance)
        if self._plan.asynchronous:
            return self._train_buffered(round, attendance)
        began = time.monotonic()
        updates, records = self._train(round, attendance, attendance.idle)
        collected = time.monotonic()
        wanted = {updates[host.name]: host.participants for host in self._hosts.layout}
        aggregation = self._server.aggregate(round, wanted)
        times = (began, collected, time.monotonic())
        return plain_outcome(self._plan, round, attendance, records, aggregation, times)

    def _train(
        self, round: int, attendance: Attendance, idle: Sequence[str]
    ) -> tuple[dict[str, Any], list[TrainRecord]]:
        """Train everybody but the named ones; returns references by host, and the records."""
        weights = self._server.broadcast()
        updates: dict[str, Any] = {}
        states: dict[str, Any] = {}

        def call(host: str) -> Any:
            updates[host], states[host], records = (
                self._hosts.actors[host]
                .train.options(num_returns=3, name=f"{self._named(round)}: train {host}")
                .remote(round, weights, self._states.get(host, {}), list(idle), attendance.anew)
            )
            return records

        answers = self._hosts.call(call, f"round {round}", self._deadline())
        self._states = states if self._plan.keeps_state else {}
        return updates, self._in_order(r for answer in answers.values() for r in answer)

    def _named(self, round: int) -> str:
        return of_round(round, self._plan.experiment.training.rounds)

    def _deadline(self) -> Deadline:
        return Deadline.after(self._execution.round_seconds, "round_seconds")

    def _in_order(self, records: Iterable[TrainRecord]) -> list[TrainRecord]:
        by_name = {r.institution: r for r in records}
        return [by_name[p.name] for p in self._plan.participants if p.name in by_name]

    def _train_buffered(self, round: int, attendance: Attendance) -> RoundOutcome:
        began = time.monotonic()
        starting = self._buffered.idle(attendance)
        others = [p.name for p in self._plan.participants if p.name not in starting]
        updates, records = self._train(round, attendance, others)
        host_of = {name: host.name for host in self._hosts.layout for name in host.participants}
        for record in records:
            update = updates[host_of[record.institution]]
            self._buffered.send(round, attendance.now, record, update)
        collected = time.monotonic()
        arrived = self._buffered.arrive(round)
        aggregation = self._server.aggregate(round, _by_payload(arrived))
        times = (began, collected, time.monotonic())
        return buffered_outcome(self._buffered, round, attendance, arrived, aggregation, times)

    def _train_securely(self, round: int, attendance: Attendance) -> RoundOutcome:
        began = time.monotonic()
        revealed, sums, records = self._secure_steps(round, attendance)
        collected = time.monotonic()
        aggregation = self._server.aggregate_revealed(round, revealed)
        ordered = self._in_order(records)
        times = (began, collected, time.monotonic())
        return secure_outcome(self._plan, round, attendance, ordered, sums, aggregation, times)

    def _secure_steps(
        self, round: int, attendance: Attendance
    ) -> tuple[Any, Any, list[TrainRecord]]:
        """Return a reference to the sums, the traffic and who was lost, and the records."""
        weights = self._server.broadcast()
        deadline = self._deadline()
        answer: Any = b""
        records: list[TrainRecord] = []
        for step in self._plan.steps:
            sent, told = self._secure_step(step, round, (answer, weights), attendance, deadline)
            records += told
            if step == self._plan.steps[-1]:
                break
            answer = self._server.secure_step(step, round, sent)
            if answer is None:
                return *self._server.lost(round), records
        return *self._server.reveal(round, sent), records

    def _secure_step(
        self,
        step: str,
        round: int,
        given: tuple[Any, Any],
        attendance: Attendance,
        deadline: Deadline,
    ) -> tuple[list[Any], list[TrainRecord]]:
        """Let all hosts take a step; returns references to their messages, and the records.

        `given` refers to the server's answer to the step before, and to its broadcast.
        """
        messages: dict[str, Any] = {}

        def call(host: str) -> Any:
            name = f"{self._named(round)}: {step} {host}"
            task = self._hosts.actors[host].secure_step.options(num_returns=2, name=name)
            absent, anew = attendance.absent, attendance.anew
            messages[host], told = task.remote(step, round, *given, absent, anew)
            return told

        answers = self._hosts.call(call, f"round {round}: {step}", deadline, again=False)
        records = [record for told in answers.values() for record in told]
        return [messages[host.name] for host in self._hosts.layout], records

    def evaluate(self, round: int, views: dict[str, tuple[View, ...]]) -> list[Scores]:
        """Score the global model on all hosts."""
        what = f"evaluation after round {round}"

        def score() -> dict[str, Any]:
            weights = self._server.release()
            return self._hosts.call(
                lambda host: (
                    self._hosts.actors[host]
                    .evaluate.options(name=f"{self._named(round)}: evaluate {host}")
                    .remote(weights, views)
                ),
                what,
                self._deadline(),
            )

        answers = self._steadily(score, what)
        scores = {s.name: s for answer in answers.values() for s in answer}
        return [scores[p.name] for p in self._plan.participants]

    def save(self, folder: Path) -> None:
        """Have the server write a checkpoint."""

        def write() -> Path:
            carried = self._buffered.carried
            bare = {who: replace(c, payload=None) for who, c in carried.items()}
            states = list(self._states.values())
            return self._server.save(folder, states, bare, _by_payload(carried.values()))

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

        def call(name: str) -> Any:
            actor = self._hosts.actors[where[name]]
            return actor.train_alone.options(name=f"train alone: {name}").remote(name, views)

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

    def _check_given(self, hosts: Sequence[Host]) -> Any:
        if self._given.bundle_count != len(hosts):
            raise ResourceError(
                f"{self._given.bundle_count} actors were reserved for, but the cluster's nodes now "
                f"ask for {len(hosts)}; set execution.institutions_per_actor to a number"
            )
        return self._given

    def _reserve(self, hosts: Sequence[Host]) -> Any:
        bundles = [asks(host) for host in hosts]
        group = placement_group(bundles, strategy=self._execution.placement)
        if not group.wait(self._execution.startup_seconds):
            table = ray.util.placement_group_table(group)
            reason = table.get("stats", {}).get("scheduling_state", "unknown")
            remove_placement_group(group)
            raise ResourceError(
                f"Ray could not place {len(bundles)} actors within "
                f"{self._execution.startup_seconds:g} s ({reason}); others may hold the cluster"
            )
        return group


def _by_payload(carried: Iterable[Carried]) -> dict[Any, list[str]]:
    """Return each list of updates, by reference, with the institutions whose are wanted of it."""
    names: dict[Any, list[str]] = {}
    for each in carried:
        names.setdefault(each.payload, []).append(each.flight.institution)
    return names
