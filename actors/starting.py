"""Bring a federation's actors up: reserve their places, start them, check that they are there."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

from actors.cluster import nodes
from actors.hosts import Hosts
from actors.institution import InstitutionActor
from actors.packing import Host, asks, in_order
from actors.parameter_server import ParameterServerActor
from actors.placement import Request
from actors.remedies import check_fit, own_gpus
from actors.server_handle import ServerHandle
from fedfuse_ray.config import ExecutionConfig
from fedfuse_ray.errors import ResourceError
from fedfuse_ray.federation.plan.plan import Plan

_Institution = ray.remote(InstitutionActor)
_ParameterServer = ray.remote(ParameterServerActor)

Group = Any
"""A placement group; Ray publishes no types."""


def layout_of(plan: Plan, asked: ExecutionConfig) -> tuple[Host, ...]:
    """Return who lives where, on the nodes that there are.

    Raises:
        ResourceError: The cluster can't hold the federation.
    """
    request = Request(plan.participants, nodes(), asked.institutions_per_actor, asked.placement)
    return tuple(check_fit(request, own_gpus(plan.experiment)))


def reserve(layout: Sequence[Host], asked: ExecutionConfig) -> Group:
    """Return a placement group with a bundle for each actor.

    Raises:
        ResourceError: Ray could not place them in time.
    """
    bundles = [asks(host) for host in in_order(layout)]
    group = placement_group(bundles, strategy=asked.placement)
    if not group.wait(asked.startup_seconds):
        table = ray.util.placement_group_table(group)
        reason = table.get("stats", {}).get("scheduling_state", "unknown")
        remove_placement_group(group)
        raise ResourceError(
            f"Ray could not place {len(bundles)} actors within "
            f"{asked.startup_seconds:g} s ({reason}); others may hold the cluster"
        )
    return group


def check_given(group: Group, layout: Sequence[Host]) -> None:
    """Check that somebody else's placement group has a bundle for each actor.

    Raises:
        ResourceError: It has not.
    """
    if group.bundle_count != len(layout):
        raise ResourceError(
            f"{group.bundle_count} actors were reserved for, but the cluster's nodes now "
            f"ask for {len(layout)}; set execution.institutions_per_actor to a number"
        )


def start_actors(
    plan: Plan, dataset: str, layout: Sequence[Host], group: Group, asked: ExecutionConfig
) -> tuple[Hosts, ServerHandle]:
    """Start the parameter server on this node, and the institutions' actors in their places.

    Args:
        plan: The federation's plan.
        dataset: The dataset's folder.
        layout: Who lives where.
        group: A placement group with a bundle for each actor, in order.
        asked: Deadlines.
    """
    namespace = f"fedfuse-{uuid.uuid4().hex[:8]}"
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    server = _ParameterServer.options(
        name="parameter-server",
        namespace=namespace,
        num_cpus=0,
        max_restarts=-1,
        scheduling_strategy=here,
    ).remote(plan)
    actors = {
        host.name: _Institution.options(
            name=host.name,
            namespace=namespace,
            num_cpus=host.num_cpus,
            num_gpus=host.num_gpus,
            max_restarts=-1,
            scheduling_strategy=PlacementGroupSchedulingStrategy(
                group, placement_group_bundle_index=index
            ),
        ).remote(host.label, plan, dataset, host.participants)
        # Nodes hand out GPUs in the order of the bundles; the fit was checked in this one.
        for index, host in enumerate(in_order(layout))
    }
    hosts = Hosts(layout, actors, asked.startup_seconds)
    return hosts, ServerHandle(server, asked.round_seconds)
