"""`python -m fedfuse_ray preflight`: does a federation fit a cluster, before anything starts?"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from fedfuse_ray.commands.options import Manifest, ParadigmName, Settings, Source
from fedfuse_ray.errors import InputError, ResourceError
from fedfuse_ray.runs.reading import read_experiment
from fedfuse_ray.terminal import output

if TYPE_CHECKING:
    from actors.packing import Node, Packing
    from actors.placement import Request
    from actors.remedies import Change
    from fedfuse_ray.config import Experiment

_KIND = re.compile(r"(?:(\d+) *x *)?\( *([\d.]+) *CPUs?(?: *, *([\d.]+) *GPUs?)? *\)", re.I)
_MOST_NODES = 1000
_ROWS = 60
_EXAMPLE = "write as '4x(8 CPU, 1 GPU)', several kinds apart by +"


def preflight_command(
    source: Source = "demo",
    data: Manifest = None,
    paradigm: ParadigmName = None,
    settings: Settings = None,
    nodes: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="A cluster you do not have: '4x(8 CPU, 1 GPU)'."),
    ] = None,
) -> None:
    """Show which actor would go where, and the smallest change that makes all of them fit.

    The cluster is the one that RAY_ADDRESS names, else this machine, unless --nodes declares
    another. Status 1 when the federation does not fit.
    """
    experiment = read_experiment(
        source, data=data, settings=settings, paradigm=paradigm, executor="ray"
    )
    declared = None if nodes is None else parse_nodes(nodes)
    from actors.remedies import own_gpus, remedies, shortage

    request = _request(experiment, declared)
    packing = request.packing()
    console = output()
    console.print(placement_table(request, packing))
    console.print(node_table(request, packing))
    if packing.fits:
        console.print("It fits.")
        return
    changes = remedies(request, own_gpus(experiment))
    console.print(remedy_table(changes))
    raise ResourceError(shortage(request, packing, changes).partition("\n")[0])


def parse_nodes(text: str) -> tuple[Node, ...]:
    """Return the nodes that a text declares, as `2x(4 CPU) + 4x(8 CPU, 1 GPU)`.

    Raises:
        InputError: It declares none, or is not of that form.
    """
    from actors.packing import Node

    nodes: list[Node] = []
    for part in text.split("+"):
        matched = _KIND.fullmatch(part.strip())
        if matched is None:
            raise InputError("--nodes", text, _EXAMPLE)
        count, cpus, gpus = matched.groups()
        try:
            offered = float(cpus), float(gpus or 0)
        except ValueError:
            raise InputError("--nodes", text, _EXAMPLE) from None
        if not 1 <= int(count or 1) <= _MOST_NODES - len(nodes):
            raise InputError("--nodes", text, f"declare 1 to {_MOST_NODES} nodes")
        for _ in range(int(count or 1)):
            nodes.append(Node(f"node-{len(nodes) + 1}", *offered))
    return tuple(nodes)


def _request(experiment: Experiment, nodes: tuple[Node, ...] | None) -> Request:
    from actors.placement import request_of

    if nodes is None:
        from actors import cluster

        cluster.connect(experiment.execution)
        nodes = cluster.nodes()
    return request_of(experiment, nodes)


def placement_table(request: Request, packing: Packing) -> Table:
    """Return a row an actor: who lives in it, what it asks for, and its node or why it has none.

    Of very many actors the first are shown, those without a place before the others.
    """
    table = Table("actor", "institutions", title=f"Placement, {request.placement}")
    table.add_column("CPUs", justify="right")
    table.add_column("GPUs", justify="right")
    table.add_column("node")
    hosts = request.hosts()
    shown = {h.name for h in sorted(hosts, key=lambda h: h.name not in packing.missing)[:_ROWS]}
    for host in (h for h in hosts if h.name in shown):
        missing = packing.missing.get(host.name)
        table.add_row(
            host.name,
            ", ".join(host.participants[:3]) + (" ..." if len(host.participants) > 3 else ""),
            f"{host.num_cpus:g}",
            f"{host.num_gpus:g}",
            f"NONE: {missing}" if missing else packing.nodes[packing.where[host.name]].name,
            style="red" if missing else None,
        )
    if len(hosts) > _ROWS:
        table.caption = f"and {len(hosts) - _ROWS:,} more actors"
    return table


def node_table(request: Request, packing: Packing) -> Table:
    """Return a row a node: how many actors it gets, and what of it they take."""
    table = Table("node", title="Nodes")
    for column in ("actors", "CPUs taken", "GPUs taken"):
        table.add_column(column, justify="right")
    hosts = request.hosts()
    for index, node in enumerate(packing.nodes):
        here = [host for host in hosts if packing.where.get(host.name) == index]
        table.add_row(
            node.name,
            str(len(here)),
            f"{sum(host.num_cpus for host in here):g} of {node.num_cpus:g}",
            f"{sum(host.num_gpus for host in here):.4g} of {node.num_gpus:g}",
        )
    return table


def remedy_table(changes: tuple[Change, ...]) -> Table:
    """Return a row for each kind of change: the smallest of it that makes all actors fit."""
    table = Table("any one of these makes it fit", "then", title="Smallest changes")
    for change in changes:
        said = str(change) if change.nodes else "\n".join(f"--set {s}" for s in change.settings)
        hosts = change.request.hosts()
        nodes = len(change.request.nodes)
        table.add_row(said, f"{len(hosts)} actors on {nodes} node{'s' if nodes > 1 else ''}")
    if not changes:
        table.add_row("no single change: ask for fewer GPUs, and add nodes", "")
    return table
