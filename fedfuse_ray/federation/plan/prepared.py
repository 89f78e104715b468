"""From an experiment to its plan and its data, for those who run no round of it yet."""

from __future__ import annotations

from fedfuse_ray.config import Experiment
from fedfuse_ray.data.dataset import Dataset, prepare
from fedfuse_ray.federation.plan import paradigms
from fedfuse_ray.federation.plan.plan import Plan, make_plan


def prepared(experiment: Experiment) -> tuple[Plan, Dataset]:
    """Return an experiment's plan and its specimens, which are made where they are not cached.

    Raises:
        InputError: The experiment or its data can't be used.
    """
    experiment = paradigms.resolve(experiment)
    dataset = prepare(
        experiment.data, experiment.institutions, seed=experiment.seed, replicas=experiment.replicas
    )
    plan = make_plan(experiment, dataset.index, pooled=paradigms.is_pooled(experiment))
    return plan, dataset
