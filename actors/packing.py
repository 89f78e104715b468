"""Where Ray will put actors, on paper.

Ray never refuses a group of actors that does not fit: it waits for ever. So we compute beforehand
what it would do. Its policy for placement groups takes the largest actor first, and sees a node's
GPUs as one sum; the node then takes each fraction from a single GPU. Where the two disagree the
group hangs, although another node has room. Such a group counts as one that does not fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Placement = Literal["PACK", "SPREAD"]

CPUS_TAKEN, GPUS_TAKEN = "CPUs are taken", "GPUs are taken"
"""Why a host that some node could hold finds no place."""

_UNITS = 10_000
"""Ray counts resources in ten thousandths."""
_SLACK = 1e-6


@dataclass(frozen=True)
class Host:
    """One actor before it is started: its participants, and what it asks for."""

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


@dataclass(frozen=True)
class Packing:
    """Hosts on nodes.

    Attributes:
        nodes: The nodes.
        where: The index of each host's node, by the host's name.
        missing: Why a host found no place, by its name.
    """

    nodes: tuple[Node, ...]
    where: dict[str, int]
    missing: dict[str, str]

    @property
    def fits(self) -> bool:
        """Whether every host has found a place."""
        return not self.missing


def granted(fraction: float) -> float:
    """Return what is asked of Ray for a fraction of a GPU: the part that no other actor can use.

    0.3 becomes a third, since a GPU holds three of either; 1.5 becomes 2. Ray adds up a node's
    GPUs, and would otherwise send a thirteenth 0.3 to a node whose four GPUs hold twelve.
    """
    if fraction <= 0:
        return 0.0
    if fraction > 1:
        return float(math.ceil(fraction - 1 / _UNITS))
    return max(1, math.floor(_UNITS / math.floor(1 / fraction + _SLACK))) / _UNITS


def gpu_slots(nodes: Sequence[Node], fraction: float) -> int:
    """Return how many actors that ask for a fraction of a GPU the nodes' GPUs hold."""
    wanted = _units(granted(fraction))
    if wanted > _UNITS:
        return sum(_UNITS * math.floor(node.num_gpus) // wanted for node in nodes)
    return sum(math.floor(node.num_gpus) * (_UNITS // wanted) for node in nodes)


def too_many_gpus(hosts: Sequence[Host], nodes: Sequence[Node]) -> bool:
    """Return whether hosts ask for more GPUs than there are; seen without packing them."""
    asked = sum(_units(host.num_gpus) for host in hosts)
    return asked > _UNITS * sum(math.floor(node.num_gpus) for node in nodes)


def asks(host: Host) -> dict[str, float]:
    """Return what a host's actor asks of Ray; a bundle must ask for something."""
    wanted = {"CPU": host.num_cpus, "GPU": host.num_gpus}
    return {name: amount for name, amount in wanted.items() if amount} or {"CPU": 0.001}


def in_order(hosts: Sequence[Host]) -> list[Host]:
    """Return hosts as Ray takes them: those that ask for most first."""
    return sorted(hosts, key=lambda h: (-_units(h.num_gpus), -_units(h.num_cpus)))


def pack(hosts: Sequence[Host], nodes: Sequence[Node], placement: Placement) -> Packing:
    """Place hosts on empty nodes as Ray would.

    Args:
        hosts: What is to be placed.
        nodes: What is there.
        placement: `PACK` fills one node after the other, `SPREAD` begins with one on each.
    """
    rooms = [_Room(node) for node in nodes]
    where: dict[str, int] = {}
    missing: dict[str, str] = {}
    place = _spread if placement == "SPREAD" else _pack
    for host, index in place(in_order(hosts), rooms):
        if index is None:
            missing[host.name] = _lacking(host, nodes, rooms)
        elif rooms[index].take(host):
            where[host.name] = index
        else:
            missing[host.name] = (
                f"Ray would choose {nodes[index].name}, where no single GPU has "
                f"{host.num_gpus:g} left"
            )
    return Packing(tuple(nodes), where, missing)


class _Room:
    """What is left of a node: to the scheduler a sum, to the node GPUs one by one."""

    def __init__(self, node: Node) -> None:
        self.cpus = _units(node.num_cpus)
        self.gpus = _UNITS * math.floor(node.num_gpus)
        self._each = [_UNITS] * math.floor(node.num_gpus)

    def score(self, host: Host) -> float:
        """Return how free the node would stay, negative where the host has no room in it."""
        left = {"CPU": self.cpus, "GPU": self.gpus}
        wanted = {name: _units(amount) for name, amount in asks(host).items()}
        if any(wanted[name] > left[name] for name in wanted):
            return -1.0
        return sum((left[name] - wanted[name]) / left[name] for name in wanted)

    def reserve(self, host: Host) -> None:
        """Take a host off the sums."""
        wanted = asks(host)
        self.cpus -= _units(wanted.get("CPU", 0.0))
        self.gpus -= _units(wanted.get("GPU", 0.0))

    def take(self, host: Host) -> bool:
        """Give a host its GPUs: whole ones, or a part of the one that it fills best."""
        wanted = _units(host.num_gpus)
        if wanted >= _UNITS:
            free = [i for i, left in enumerate(self._each) if left == _UNITS]
            chosen = free[: math.ceil(wanted / _UNITS)]
            for index in chosen:
                self._each[index] = 0
            return len(chosen) * _UNITS >= wanted
        if wanted:
            fitting = [(left, i) for i, left in enumerate(self._each) if left >= wanted]
            if not fitting:
                return False
            self._each[min(fitting)[1]] -= wanted
        return True


_Choices = list[tuple[Host, int | None]]


def _best(host: Host, rooms: Sequence[_Room], among: Sequence[int]) -> int | None:
    scored = [(rooms[i].score(host), -i) for i in among]
    score, index = max(scored, default=(-1.0, 0))
    return None if score < 0 else -index


def _pack(hosts: Sequence[Host], rooms: Sequence[_Room]) -> _Choices:
    choices: _Choices = []
    left, candidates = list(hosts), list(range(len(rooms)))
    while left:
        best = _best(left[0], rooms, candidates)
        if best is None:
            choices.append((left.pop(0), None))
            continue
        others: list[Host] = []
        for host in left:
            if rooms[best].score(host) < 0:
                others.append(host)
            else:
                rooms[best].reserve(host)
                choices.append((host, best))
        left = others
        candidates.remove(best)
    return choices


def _spread(hosts: Sequence[Host], rooms: Sequence[_Room]) -> _Choices:
    choices: _Choices = []
    fresh, used = list(range(len(rooms))), list[int]()
    for host in hosts:
        best = _best(host, rooms, fresh)
        if best is not None:
            fresh.remove(best)
            used.append(best)
        else:
            best = _best(host, rooms, used)
        if best is not None:
            rooms[best].reserve(host)
        choices.append((host, best))
    return choices


def _lacking(host: Host, nodes: Sequence[Node], rooms: Sequence[_Room]) -> str:
    if all(_Room(node).score(host) < 0 for node in nodes):
        wanted = [f"{amount:g} {name}" for name, amount in asks(host).items()]
        return f"no node has {' and '.join(wanted)}"
    if host.num_gpus and all(room.gpus < _units(host.num_gpus) for room in rooms):
        return GPUS_TAKEN
    return CPUS_TAKEN


def _units(amount: float) -> int:
    return round(amount * _UNITS)
