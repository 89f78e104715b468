"""What a trial reserves on the cluster, checked before Tune would wait for it for ever."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ray import tune

from actors.cluster import nodes
from actors.packing import asks, in_order
from actors.placement import request_of
from actors.remedies import check_fit, own_gpus
from fedfuse_ray.config import Experiment, load
from fedfuse_ray.errors import InputError, ResourceError
from fedfuse_ray.studies.sweeping.config import Sweep
from fedfuse_ray.studies.sweeping.store import EXPERIMENT, SweepStore


def of_a_trial(sweep: Sweep, store: SweepStore, names: Sequence[str]) -> object:
    """Return what each trial reserves.

    Raises:
        InputError: Trials of actors that differ in what they ask for.
        ResourceError: The cluster has no room for a trial.
    """
    if sweep.executor == "serial":
        _check_fit(sweep)
        return {"cpu": sweep.cpus_per_trial, "gpu": sweep.gpus_per_trial}
    asked: dict[str, tuple[str, list[dict[str, float]]]] = {}
    experiments = {name: load(store.trials / name / EXPERIMENT) for name in names}
    for name, experiment in experiments.items():
        alike = json.dumps(
            [
                experiment.paradigm,
                experiment.execution.model_dump(mode="json"),
                [i.model_dump(mode="json") for i in experiment.institutions],
            ]
        )
        if alike not in asked:
            asked[alike] = name, _bundles(experiment)
    (first, bundles), *others = asked.values()
    for name, theirs in others:
        if theirs != bundles:
            raise InputError(
                "space",
                name,
                f"its actors ask for {len(theirs)} bundles like {theirs[0]}, those of {first} for "
                f"{len(bundles)} like {bundles[0]}; sweep them apart",
            )
    # The trial's own process only waits for its actors: the first bundle is empty.
    strategy = experiments[first].execution.placement
    return tune.PlacementGroupFactory([{}, *bundles], strategy=strategy)


def _bundles(experiment: Experiment) -> list[dict[str, float]]:
    """Return what a federation's actors reserve on this cluster."""
    layout = check_fit(request_of(experiment, nodes()), own_gpus(experiment))
    return [asks(host) for host in in_order(layout)]


def _check_fit(sweep: Sweep) -> None:
    """Refuse what would wait for ever."""
    wanted = (sweep.cpus_per_trial, sweep.gpus_per_trial)
    offered = nodes()
    if not any(n.num_cpus >= wanted[0] and n.num_gpus >= wanted[1] for n in offered):
        told = ", ".join(f"{n.name}: {n.num_cpus:g} CPUs, {n.num_gpus:g} GPUs" for n in offered)
        raise ResourceError(
            f"a trial asks for {wanted[0]:g} CPUs and {wanted[1]:g} GPUs, which no node has "
            f"({told}); lower cpus_per_trial or gpus_per_trial"
        )
