"""Who shares an actor with whom, what each actor asks of the cluster, and whether that fits."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from actors.packing import Host, Node, Packing, Placement, gpu_slots, granted, pack, too_many_gpus
from fedfuse_ray.config import Experiment
from fedfuse_ray.data.dataset import outline
from fedfuse_ray.federation.plan.paradigms import is_pooled, resolve
from fedfuse_ray.federation.plan.participants import Participant, who_trains

PerActor = int | Literal["auto"]

_LEAST_CPUS = 0.01
_SLACK = 1e-6


@dataclass(frozen=True)
class Request:
    """What a federation asks of a cluster, under the settings of `execution`."""

    participants: tuple[Participant, ...]
    nodes: tuple[Node, ...]
    per_actor: PerActor
    placement: Placement

    def hosts(self) -> tuple[Host, ...]:
        """Return the actors that it comes to."""
        return lay_out(self.participants, self.nodes, self.per_actor, self.placement)

    def packing(self) -> Packing:
        """Return where these go."""
        return pack(self.hosts(), self.nodes, self.placement)

    def fits(self) -> bool:
        """Return whether all find a place."""
        hosts = self.hosts()
        return not too_many_gpus(hosts, self.nodes) and pack(hosts, self.nodes, self.placement).fits


def request_of(experiment: Experiment, nodes: tuple[Node, ...]) -> Request:
    """Return what an experiment's federation asks of a cluster, before its specimens are made."""
    experiment = resolve(experiment)
    seed, replicas = experiment.seed, experiment.replicas
    index = outline(experiment.data, experiment.institutions, seed=seed, replicas=replicas)
    asked = experiment.execution
    participants = who_trains(experiment, index, pooled=is_pooled(experiment))
    return Request(participants, nodes, asked.institutions_per_actor, asked.placement)


def lay_out(
    participants: Sequence[Participant],
    nodes: Sequence[Node],
    per_actor: PerActor,
    placement: Placement = "PACK",
) -> tuple[Host, ...]:
    """Spread participants over actors.

    `auto` gives each an actor of its own where the cluster has a CPU (or a GPU slot) for each,
    else makes as many hosts as there are cores (or GPU slots), balanced by training specimens
    times modalities. Logical CPUs shrink to fit, since they only guide placement; GPUs never do.
    """
    cores = max(1, math.floor(sum(node.num_cpus for node in nodes)))
    fraction = max(p.num_gpus for p in participants)
    slots = min(cores, gpu_slots(nodes, fraction)) if fraction > 0 else cores
    if per_actor == "auto":
        count = len(participants) if slots >= len(participants) else max(1, slots)
    else:
        count = math.ceil(len(participants) / per_actor)
    groups = _balance(participants, count)
    cpus = _cpus_each(nodes, len(groups))
    hosts = tuple(_host(index, group, cpus) for index, group in enumerate(groups))
    return _shrunk(hosts, nodes, placement)


def _shrunk(hosts: tuple[Host, ...], nodes: Sequence[Node], how: Placement) -> tuple[Host, ...]:
    """Ask for fewer CPUs where only these stand in the way, as on a node of many GPUs."""
    if too_many_gpus(hosts, nodes) or pack(hosts, nodes, how).fits:
        return hosts
    cpus = max(host.num_cpus for host in hosts) / 2
    while cpus >= _LEAST_CPUS:
        fewer = tuple(replace(h, num_cpus=min(h.num_cpus, round(cpus, 4))) for h in hosts)
        if pack(fewer, nodes, how).fits:
            return fewer
        cpus /= 2
    return hosts


def _cpus_each(nodes: Sequence[Node], actors: int) -> float:
    """Return the most CPUs, at most one, that each actor can have whole on some node."""
    for hundredths in range(100, 0, -1):
        slots = sum(math.floor(100 * node.num_cpus / hundredths + _SLACK) for node in nodes)
        if slots >= actors:
            return hundredths / 100
    return 0.0


def _balance(participants: Sequence[Participant], count: int) -> list[list[Participant]]:
    """Longest processing time first, then back to the plan's order within each group."""
    order = {p.name: i for i, p in enumerate(participants)}
    lightest = [(0.0, i) for i in range(count)]
    groups: list[list[Participant]] = [[] for _ in range(count)]
    costs = {p.name: max(1, p.specimens) * (len(p.modalities) + 0.5) for p in participants}
    for participant in sorted(participants, key=lambda p: (-costs[p.name], order[p.name])):
        load, index = heapq.heappop(lightest)
        groups[index].append(participant)
        heapq.heappush(lightest, (load + costs[participant.name], index))
    kept = [sorted(group, key=lambda p: order[p.name]) for group in groups if group]
    return sorted(kept, key=lambda group: order[group[0].name])


def _host(index: int, group: Sequence[Participant], cpus: float) -> Host:
    label, name = group[0].label, group[0].name
    if len(group) > 1:
        label = f"host-{index + 1:02d} [{len(group)} institutions: {name} ...]"
        name = f"host-{index + 1:02d}"
    return Host(
        label=label,
        name=name,
        participants=tuple(p.name for p in group),
        num_cpus=min(cpus, max(p.num_cpus for p in group)),
        num_gpus=granted(max(p.num_gpus for p in group)),
    )
