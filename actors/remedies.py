"""The smallest change that would make a federation fit, and what is said when it does not."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from actors.packing import CPUS_TAKEN, Host, Node, Packing, Placement, asks, gpu_slots, granted
from actors.placement import Request
from fedfuse_ray.config import Experiment
from fedfuse_ray.errors import ResourceError
from fedfuse_ray.federation.plan.participants import Participant

_MOST_NODES = 64
_GPUS = "execution.num_gpus_per_institution"
_NAMED = 3


@dataclass(frozen=True)
class Change:
    """One change: dotted overrides, as `--set` takes them, or nodes to add; then the request."""

    settings: tuple[str, ...]
    nodes: tuple[Node, ...]
    request: Request

    def __str__(self) -> str:
        if self.nodes:
            node = self.nodes[0]
            gpus = f", {node.num_gpus:g} GPU" if node.num_gpus else ""
            return f"add nodes: {len(self.nodes)}x({node.num_cpus:g} CPU{gpus})"
        said = ", ".join(self.settings[:_NAMED])
        others = len(self.settings) - _NAMED
        return f"set {said}" + (f" and {others} more" if others > 0 else "")


def own_gpus(experiment: Experiment) -> frozenset[str]:
    """Return the institutions whose hardware states a number of GPUs of its own."""
    return frozenset(i.name for i in experiment.institutions if i.hardware.num_gpus is not None)


def remedies(request: Request, own: Collection[str] = ()) -> tuple[Change, ...]:
    """Return for each kind of change the smallest that makes a request fit; empty where it does.

    Kinds come in the order of what they cost: another placement, institutions that share an actor,
    smaller parts of a GPU, more nodes. Each was packed by the function that found the shortage.
    `own` are the institutions that state GPUs of their own, which `execution` does not override.
    """
    if request.fits():
        return ()
    kinds = (placements(request), sharing(request), fractions(request, own), more_nodes(request))
    first = (next((c for c in kind if c.request.fits()), None) for kind in kinds)
    return tuple(change for change in first if change is not None)


def placements(request: Request) -> Iterator[Change]:
    """Yield the other placement."""
    other: Placement = "PACK" if request.placement == "SPREAD" else "SPREAD"
    changed = replace(request, placement=other)
    yield Change((f"execution.placement={other}",), (), changed)


def sharing(request: Request) -> Iterator[Change]:
    """Yield more and more institutions an actor; each makes fewer actors than the one before."""
    total = len(request.participants)
    actors = len(request.hosts())
    for number in range(2, total + 1):
        if math.ceil(total / number) < actors:
            actors = math.ceil(total / number)
            changed = replace(request, per_actor=number)
            yield Change((f"execution.institutions_per_actor={number}",), (), changed)


def fractions(request: Request, own: Collection[str] = ()) -> Iterator[Change]:
    """Yield smaller and smaller parts of a GPU for those that ask for most, and none at last."""
    most = max(granted(p.num_gpus) for p in request.participants)
    whole = [float(n) for n in range(math.ceil(most) - 1, 0, -1)]
    parts = dict.fromkeys(granted(1 / n) for n in range(2, len(request.participants) + 2))
    for limit in [*whole, *(part for part in parts if part < most), 0.0]:
        if limit < most:
            yield _limited(request, limit, own)


def _limited(request: Request, limit: float, own: Collection[str]) -> Change:
    settings: dict[str, None] = {}
    participants = list(request.participants)
    for index, participant in enumerate(participants):
        if granted(participant.num_gpus) > limit:
            settings |= dict.fromkeys(_settings(participant, limit, own))
            participants[index] = replace(participant, num_gpus=limit)
    return Change(tuple(settings), (), replace(request, participants=tuple(participants)))


def _settings(participant: Participant, limit: float, own: Collection[str]) -> Iterator[str]:
    """Yield what sets a participant's GPUs: a pool's are its largest member's."""
    for member in participant.members:
        # A replica, as `med-01-0002`, is set by its original.
        name = member if member in own else member.rpartition("-")[0]
        field = f"institutions.{name}.hardware.num_gpus" if name in own else _GPUS
        yield f"{field}={limit:g}"


def more_nodes(request: Request) -> Iterator[Change]:
    """Yield 1 to 64 nodes more, like the largest there is or as the largest institution needs."""
    hosts = request.hosts()
    cpus = max(asks(h).get("CPU", 0.0) for h in hosts)
    gpus = max(h.num_gpus for h in hosts)
    largest = max(request.nodes, key=lambda n: (n.num_gpus, n.num_cpus))
    if largest.num_gpus < gpus or largest.num_cpus < cpus:
        most = max(1.0, cpus, *(n.num_cpus for n in request.nodes))
        largest = Node("new", math.ceil(most), float(math.ceil(max(gpus, largest.num_gpus))))
    for count in range(1, min(_MOST_NODES, len(hosts)) + 1):
        new = tuple(replace(largest, name=f"new-{n}") for n in range(1, count + 1))
        yield Change((), new, replace(request, nodes=(*request.nodes, *new)))


def check_fit(request: Request, own: Collection[str] = ()) -> tuple[Host, ...]:
    """Return a request's actors, when the cluster holds them.

    Raises:
        ResourceError: Some find no place; says which, what is short, and the smallest change.
    """
    packing = request.packing()
    if not packing.fits:
        raise ResourceError(shortage(request, packing, remedies(request, own)))
    return request.hosts()


def shortage(request: Request, packing: Packing, changes: Sequence[Change]) -> str:
    """Say on one line what is short and what would do, then by node who found a place."""
    hosts = request.hosts()
    first = next(h for h in hosts if h.name in packing.missing)
    said = (
        f"{first.name} finds no place after {len(packing.where)} of {len(hosts)} actors: "
        f"{_short_of(first, hosts, packing)}; {_advice(changes)}"
    )
    lines = [f"  {_line(index, node, hosts, packing)}" for index, node in enumerate(request.nodes)]
    lines += [f"  no place: {name} ({why})" for name, why in list(packing.missing.items())[:_NAMED]]
    if len(packing.missing) > _NAMED:
        lines.append(f"  no place: {len(packing.missing) - _NAMED} more")
    return "\n".join([said, *lines])


def _short_of(host: Host, hosts: Sequence[Host], packing: Packing) -> str:
    nodes = packing.nodes
    if not host.num_gpus or packing.missing[host.name] == CPUS_TAKEN:
        cpus = sum(n.num_cpus for n in nodes)
        if not cpus:
            return "CPUs are short: the cluster has none"
        return f"CPUs are short: {len(hosts)} actors of {host.num_cpus:g} CPU on {cpus:g} CPUs"
    gpus = sum(n.num_gpus for n in nodes)
    if not gpus:
        return "GPUs are short: the cluster has none"
    if len({h.num_gpus for h in hosts}) > 1:
        asked = sum(h.num_gpus for h in hosts)
        return f"GPUs are short: {len(hosts)} actors ask for {asked:g} GPU in all on {gpus:g} GPUs"
    slots = gpu_slots(nodes, host.num_gpus)
    return (
        f"GPUs are short: {len(hosts)} actors of {host.num_gpus:g} GPU, but the cluster's {gpus:g} "
        f"GPUs have {slots} slots of that size"
    )


def _advice(changes: Sequence[Change]) -> str:
    if not changes:
        return "no single change would do: ask for fewer GPUs, and add nodes"
    return "smallest change: " + ", or ".join(str(change) for change in changes)


def _line(index: int, node: Node, hosts: Sequence[Host], packing: Packing) -> str:
    here = [h for h in hosts if packing.where.get(h.name) == index]
    cpus, gpus = sum(h.num_cpus for h in here), sum(h.num_gpus for h in here)
    return (
        f"{node.name}: {len(here)} actors, {cpus:g} of {node.num_cpus:g} CPUs, "
        f"{gpus:.4g} of {node.num_gpus:g} GPUs"
    )
