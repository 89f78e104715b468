"""The dataset on the node that an actor happens to run on."""

from __future__ import annotations

from pathlib import Path

from fedfuse_ray.data.dataset import Dataset, prepare
from fedfuse_ray.federation.plan.plan import Plan


def dataset_on_this_node(plan: Plan, folder: Path) -> Dataset:
    """Open the dataset, or make it where this node's disk does not have it.

    Generation is deterministic, so every node makes the same one.
    """
    if not folder.is_dir():
        experiment = plan.experiment
        return prepare(
            experiment.data,
            experiment.institutions,
            seed=experiment.seed,
            replicas=experiment.replicas,
            cache=folder.parent.parent,
        )
    return Dataset(folder)
