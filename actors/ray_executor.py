"""The executor that runs participants as Ray actors.

Weights and updates move between actors by reference; the driver sees only records of a few bytes.
Actors may die at any time: hosts keep no state, and the server's is in the last checkpoint, so a
call is simply made again and gives the identical answer.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

from actors.cluster import ACTOR_LOST, connect, nodes, wait
from actors.institution import InstitutionActor
from actors.parameter_server import ParameterServerActor
from actors.placement import Host, check_fit, lay_out
from actors.server_handle import ServerHandle
from fedfuse_ray.config import ExecutionConfig
from fedfuse_ray.errors import (
    DeadlineError,
    FedfuseError,
    InstitutionError,
    NotReadyError,
    ResourceError,
    RestartError,
)
from fedfuse_ray.federation.buffered import Buffered, Carried
from fedfuse_ray.federation.executor import RoundOutcome
from fedfuse_ray.federation.metrics import Scores, View
from fedfuse_ray.federation.outcomes import buffered_outcome, plain_outcome, secure_outcome
from fedfuse_ray.federation.plan import Plan
from fedfuse_ray.federation.records import Alone, TrainRecord
from fedfuse_ray.federation.secure_round import STEPS
from fedfuse_ray.federation.timeline import EVERYONE, Attendance

_ATTEMPTS = 8
_PAUSE_SECONDS = 0.2

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
        self._layout: tuple[Host, ...] = ()
        self._hosts: dict[str, Any] = {}
        self._states: dict[str, Any] = {}

    def start(self, plan: Plan, dataset: Path) -> None:
        """Join Ray, check the fit, then bring all actors up.

        Raises:
            ResourceError: The cluster can't hold the federation.
            DeadlineError: The actors were not up in time.
        """
        connect(self._execution)
        self._plan = plan
        offered = nodes()
        self._layout = lay_out(plan.participants, offered, self._execution.institutions_per_actor)
        check_fit(self._layout, offered)
        self._group = self._reserve() if self._given is None else self._check_given()
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
        for index, host in enumerate(self._layout):
            self._hosts[host.name] = _Institution.options(
                name=host.name,
                namespace=namespace,
                num_cpus=host.num_cpus,
                num_gpus=host.num_gpus,
                max_restarts=-1,
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    self._group, placement_group_bundle_index=index
                ),
            ).remote(host.label, plan, str(dataset), host.participants)
        self._call_hosts(
            lambda host: self._hosts[host].ready.options(name=f"start: {host}").remote(),
            "start-up",
            self._execution.startup_seconds,
        )

    def load(self, path: Path | None) -> None:
        """Set the server to a checkpoint, or to the seeded initial weights."""
        first = next(iter(self._hosts.values()))
        initial = None if path else first.initial.options(name="initial weights").remote()
        self._server.load(path, initial)
        self._states = {}
        if path and self._plan.keeps_state:
            self._states = {h.name: self._server.states(h.participants) for h in self._layout}
        self._buffered = Buffered(self._plan)
        if path and self._plan.asynchronous:
            known = self._server.carried()
            self._buffered.carried = {
                who: replace(c, payload=ray.put([(who, np.frombuffer(c.payload, np.uint8))]))
                for who, c in known.items()
            }

    def train(self, round: int, attendance: Attendance = EVERYONE) -> RoundOutcome:
        """Run one round; an actor that dies is started again and asked again."""
        if self._plan.coding.secure:
            return self._train_securely(round, attendance)
        if self._plan.asynchronous:
            return self._train_buffered(round, attendance)
        began = time.monotonic()
        updates, records = self._train(round, attendance, attendance.absent)
        collected = time.monotonic()
        wanted = {updates[host.name]: host.participants for host in self._layout}
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
                self._hosts[host]
                .train.options(num_returns=3, name=f"round {round}: train {host}")
                .remote(round, weights, self._states.get(host, {}), list(idle), attendance.anew)
            )
            return records

        answers = self._call_hosts(call, f"round {round}", self._execution.round_seconds)
        self._states = states if self._plan.keeps_state else {}
        return updates, self._in_order(r for answer in answers.values() for r in answer)

    def _in_order(self, records: Iterable[TrainRecord]) -> list[TrainRecord]:
        by_name = {r.institution: r for r in records}
        return [by_name[p.name] for p in self._plan.participants if p.name in by_name]

    def _train_buffered(self, round: int, attendance: Attendance) -> RoundOutcome:
        began = time.monotonic()
        starting = self._buffered.idle(attendance)
        others = [p.name for p in self._plan.participants if p.name not in starting]
        updates, records = self._train(round, attendance, others)
        host_of = {name: host.name for host in self._layout for name in host.participants}
        for record in records:
            update = updates[host_of[record.institution]]
            self._buffered.send(round, attendance.now, record, update)
        collected = time.monotonic()
        arrived = self._buffered.arrive(round)
        aggregation = self._server.aggregate(round, _by_payload(arrived))
        times = (began, collected, time.monotonic())
        return buffered_outcome(self._buffered, round, attendance, arrived, aggregation, times)

    def _train_securely(self, round: int, attendance: Attendance) -> RoundOutcome:
        """Run one round under secure aggregation; from its first step where a process died."""
        began = time.monotonic()
        for _ in range(_ATTEMPTS):
            try:
                revealed, sums, records = self._secure_steps(round, attendance)
                break
            except (*ACTOR_LOST, NotReadyError, RestartError):
                time.sleep(_PAUSE_SECONDS)
        else:
            raise FedfuseError(f"round {round}: processes died {_ATTEMPTS} times; giving up")
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
        deadline = time.monotonic() + self._execution.round_seconds
        answer: Any = b""
        records: list[TrainRecord] = []
        for step in STEPS:
            asked = {
                host: actor.secure_step.options(
                    num_returns=2, name=f"round {round}: {step} {host}"
                ).remote(step, round, answer, weights, attendance.absent, attendance.anew)
                for host, actor in self._hosts.items()
            }
            self._await({told: host for host, (_, told) in asked.items()}, step, deadline)
            for host, (_, told) in asked.items():
                records += _fetch(told, host)
            messages = [asked[host.name][0] for host in self._layout]
            if step == STEPS[-1]:
                break
            answer = self._server.secure_step(step, round, messages)
            if answer is None:
                revealed, sums = self._server.lost(round)
                return revealed, sums, records
        revealed, sums = self._server.reveal(round, messages)
        return revealed, sums, records

    def _await(self, waiting: dict[Any, str], what: str, deadline: float) -> None:
        """Wait for all; some may be ready because their process died."""
        while waiting:
            ready = wait(list(waiting), deadline)
            if not ready:
                raise DeadlineError(
                    self._late(waiting.values(), what, self._execution.round_seconds)
                )
            for ref in ready:
                del waiting[ref]

    def _late(self, hosts: Iterable[str], what: str, seconds: float) -> str:
        named = set(hosts)
        late = [n for h in self._layout if h.name in named for n in h.participants]
        return f"{what}: no answer within {seconds:g} s from {', '.join(late)}"

    def evaluate(self, round: int, views: dict[str, tuple[View, ...]]) -> list[Scores]:
        """Score the global model on all hosts."""
        weights = self._server.release()
        answers = self._call_hosts(
            lambda host: (
                self._hosts[host]
                .evaluate.options(name=f"round {round}: evaluate {host}")
                .remote(weights, views)
            ),
            f"evaluation after round {round}",
            self._execution.round_seconds,
        )
        scores = {s.name: s for answer in answers.values() for s in answer}
        return [scores[p.name] for p in self._plan.participants]

    def save(self, folder: Path) -> None:
        """Have the server write a checkpoint."""
        carried = self._buffered.carried
        bare = {who: replace(c, payload=None) for who, c in carried.items()}
        states = list(self._states.values())
        self._server.save(folder, states, bare, _by_payload(carried.values()))

    def sha256(self) -> str:
        """Return the digest of the global weights."""
        return self._server.sha256()

    def block_sizes(self) -> dict[str, int]:
        """Return the number of parameters of each block."""
        return self._server.block_sizes()

    def train_alone(
        self, names: Sequence[str], views: dict[str, tuple[View, ...]]
    ) -> Iterator[Alone]:
        """Train participants side by side, the largest first; yields each as it finishes."""
        where = {name: host.name for host in self._layout for name in host.participants}
        attempts = dict.fromkeys(names, 0)

        def call(name: str) -> Any:
            attempts[name] += 1
            actor = self._hosts[where[name]]
            return actor.train_alone.options(name=f"train alone: {name}").remote(name, views)

        sizes = {name: -self._plan.by_name[name].specimens for name in names}
        waiting = {call(name): name for name in sorted(names, key=lambda name: sizes[name])}
        while waiting:
            done, _ = ray.wait(list(waiting), timeout=self._execution.round_seconds)
            if not done:
                late = ", ".join(waiting.values())
                raise DeadlineError(f"training alone took longer than round_seconds: {late}")
            name = waiting.pop(done[0])
            try:
                yield _fetch(done[0], name)
            except ACTOR_LOST as error:
                _give_up_after(attempts[name], name, error)
                time.sleep(_PAUSE_SECONDS)
                waiting[call(name)] = name

    def close(self) -> None:
        """Stop the actors that this executor started."""
        actors = list(self._hosts.values())
        if self._hosts:
            actors.append(self._server.actor)
        for actor in actors:
            with contextlib.suppress(Exception):
                ray.kill(actor)
        if self._group is not None and self._given is None:
            remove_placement_group(self._group)
        self._hosts, self._group = {}, None

    def _check_given(self) -> Any:
        if self._given.bundle_count != len(self._layout):
            raise ResourceError(
                f"{self._given.bundle_count} actors were reserved for, but the cluster's nodes now "
                f"ask for {len(self._layout)}; set execution.institutions_per_actor to a number"
            )
        return self._given

    def _reserve(self) -> Any:
        bundles = [bundle(host) for host in self._layout]
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

    def _call_hosts(self, call: Callable[[str], Any], what: str, seconds: float) -> dict[str, Any]:
        """Call every host, again where a process died; returns the answers by host."""
        deadline = time.monotonic() + seconds
        waiting = {call(host.name): host.name for host in self._layout}
        attempts = dict.fromkeys(self._hosts, 1)
        answers: dict[str, Any] = {}
        while waiting:
            ready = wait(list(waiting), deadline)
            if not ready:
                raise DeadlineError(self._late(waiting.values(), what, seconds))
            for ref in ready:
                host = waiting.pop(ref)
                try:
                    answers[host] = _fetch(ref, host)
                except ACTOR_LOST as error:
                    _give_up_after(attempts[host], host, error)
                    attempts[host] += 1
                    time.sleep(_PAUSE_SECONDS)
                    waiting[call(host)] = host
        return answers


def _by_payload(carried: Iterable[Carried]) -> dict[Any, list[str]]:
    """Return each list of updates, by reference, with the institutions whose are wanted of it."""
    names: dict[Any, list[str]] = {}
    for each in carried:
        names.setdefault(each.payload, []).append(each.flight.institution)
    return names


def _fetch(ref: Any, who: str) -> Any:
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        raise _cause(error, who) from None


def bundle(host: Host) -> dict[str, float]:
    """Return what a placement group has to reserve for an actor."""
    wanted = {"CPU": host.num_cpus, "GPU": host.num_gpus}
    # A bundle must ask for something, also where institutions ask for no CPU.
    return {name: amount for name, amount in wanted.items() if amount} or {"CPU": 0.001}


def _give_up_after(attempts: int, who: str, error: Exception) -> None:
    if attempts >= _ATTEMPTS:
        raise InstitutionError(who, f"its process died {attempts} times; last: {error}") from None


def _cause(error: ray.exceptions.RayTaskError, who: str) -> FedfuseError:
    """Return what the project raised inside an actor, or the traceback of what it did not."""
    cause = error.cause
    return cause if isinstance(cause, FedfuseError) else InstitutionError(who, str(error))
