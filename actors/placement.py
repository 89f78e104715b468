"""Who shares an actor with whom, what each actor asks of the cluster, and whether that fits.

Ray never fails an actor that does not fit, it waits for ever; so the fit is checked before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fedfuse_ray.errors import ResourceError
from fedfuse_ray.federation.participant import Participant

_SLACK = 1e-6


@dataclass(frozen=True)
class Host:
    """One actor to be: the participants that live in it, and what it asks for."""

    label: str
    name: str
    participants: tuple[str, ...]
    num_cpus: float
    num_gpus: float


@dataclass(frozen=True)
class Node:
    """What a Ray node offers."""

    name: str
    num_cpus: float
    num_gpus: float


def lay_out(
    participants: Sequence[Participant],
    nodes: Sequence[Node],
    per_actor: int | Literal["auto"],
) -> tuple[Host, ...]:
    """Spread participants over actors.

    `auto` gives each an actor of its own where the cluster has a CPU (or a GPU slot) for each,
    else makes as many hosts as there are cores (or GPU slots), balanced by training specimens
    times modalities. Logical CPUs shrink to fit, since they only guide placement; GPUs never do.
    """
    cores = max(1, math.floor(sum(node.num_cpus for node in nodes)))
    fraction = max(p.num_gpus for p in participants)
    slots = min(cores, _gpu_slots(nodes, fraction)) if fraction > 0 else cores
    if per_actor == "auto":
        count = len(participants) if slots >= len(participants) else max(1, slots)
    else:
        count = math.ceil(len(participants) / per_actor)
    groups = _balance(participants, count)
    cpus = _cpus_each(nodes, len(groups))
    return tuple(_host(index, group, cpus) for index, group in enumerate(groups))


def check_fit(hosts: Sequence[Host], nodes: Sequence[Node]) -> None:
    """Place the hosts on the nodes on paper, first fit.

    Raises:
        ResourceError: Some host finds no place; says which resource is short, and what would do.
    """
    cpus = [node.num_cpus for node in nodes]
    gpus = [[1.0] * math.floor(node.num_gpus) for node in nodes]
    placed = 0
    for host in hosts:
        for index in range(len(nodes)):
            slot = _gpu_slot(gpus[index], host.num_gpus)
            if cpus[index] + _SLACK >= host.num_cpus and slot is not None:
                cpus[index] -= host.num_cpus
                for gpu, share in slot:
                    gpus[index][gpu] -= share
                placed += 1
                break
        else:
            raise ResourceError(_shortage(host, placed, hosts, nodes))


def _cpus_each(nodes: Sequence[Node], actors: int) -> float:
    """Return the most CPUs, at most one, that each actor can have whole on some node."""
    for hundredths in range(100, 0, -1):
        slots = sum(math.floor(100 * node.num_cpus / hundredths + _SLACK) for node in nodes)
        if slots >= actors:
            return hundredths / 100
    return 0.0


def _gpu_slots(nodes: Sequence[Node], fraction: float) -> int:
    if fraction >= 1:
        return sum(math.floor(node.num_gpus / math.ceil(fraction)) for node in nodes)
    return sum(math.floor(node.num_gpus) * math.floor(1 / fraction + _SLACK) for node in nodes)


def _gpu_slot(free: Sequence[float], wanted: float) -> list[tuple[int, float]] | None:
    if wanted <= 0:
        return []
    if wanted <= 1:
        fitting = [i for i, left in enumerate(free) if left + _SLACK >= wanted]
        return [(fitting[0], wanted)] if fitting else None
    whole = [i for i, left in enumerate(free) if left >= 1 - _SLACK][: math.ceil(wanted)]
    return [(i, 1.0) for i in whole] if len(whole) == math.ceil(wanted) else None


def _balance(participants: Sequence[Participant], count: int) -> list[list[Participant]]:
    """Longest processing time first, then back to the plan's order within each group."""
    order = {p.name: i for i, p in enumerate(participants)}
    loads = [0.0] * count
    groups: list[list[Participant]] = [[] for _ in range(count)]
    costs = {p.name: max(1, p.specimens) * (len(p.modalities) + 0.5) for p in participants}
    for participant in sorted(participants, key=lambda p: (-costs[p.name], order[p.name])):
        lightest = min(range(count), key=lambda i: (loads[i], i))
        groups[lightest].append(participant)
        loads[lightest] += costs[participant.name]
    kept = [sorted(group, key=lambda p: order[p.name]) for group in groups if group]
    return sorted(kept, key=lambda group: order[group[0].name])


def _host(index: int, group: Sequence[Participant], cpus: float) -> Host:
    if len(group) == 1:
        label, name = group[0].label, group[0].name
    else:
        label = f"host-{index + 1:02d} [{len(group)} institutions: {group[0].name} ...]"
        name = f"host-{index + 1:02d}"
    return Host(
        label=label,
        name=name,
        participants=tuple(p.name for p in group),
        num_cpus=min(cpus, max(p.num_cpus for p in group)),
        num_gpus=max(p.num_gpus for p in group),
    )


def _shortage(host: Host, placed: int, hosts: Sequence[Host], nodes: Sequence[Node]) -> str:
    gpus, cpus = sum(n.num_gpus for n in nodes), sum(n.num_cpus for n in nodes)
    if host.num_gpus and _gpu_slots(nodes, host.num_gpus) < len(hosts):
        slots = _gpu_slots(nodes, host.num_gpus)
        remedy = (
            f"GPUs are short: {len(hosts)} actors of {host.num_gpus:g} GPU, but the cluster's "
            f"{gpus:g} GPUs have {slots} slots of that size; "
        )
        if slots:
            remedy += (
                f"set execution.institutions_per_actor=auto, or at most "
                f"{_fitting_fraction(nodes, len(hosts)):g} GPU each"
            )
        else:
            remedy += "set execution.num_gpus_per_institution=0, or add a GPU node"
    else:
        remedy = (
            f"CPUs are short: {len(hosts)} actors of {host.num_cpus:g} CPU on {cpus:g} CPUs; "
            "set execution.institutions_per_actor=auto, or add nodes"
        )
    return f"{host.name} finds no place after {placed} of {len(hosts)} actors: {remedy}"


def _fitting_fraction(nodes: Sequence[Node], actors: int) -> float:
    gpus = sum(math.floor(node.num_gpus) for node in nodes)
    return math.floor(100 / math.ceil(actors / max(1, gpus))) / 100
