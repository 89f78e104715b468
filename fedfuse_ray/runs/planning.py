"""From an experiment and its data to the plan of a run, with all that it needs at hand."""

from __future__ import annotations

from pathlib import Path

from fedfuse_ray.config import Experiment, load
from fedfuse_ray.data.dataset import Dataset
from fedfuse_ray.data.index import told_sizes
from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.institution.encoding import encode_ahead
from fedfuse_ray.federation.plan import paradigms, public_encoders, transfer
from fedfuse_ray.federation.plan.patient_warning import patient_warning
from fedfuse_ray.federation.plan.plan import Plan, make_plan
from fedfuse_ray.privacy.randomness import Randomness
from fedfuse_ray.runs.progress import Progress


def planned_run(
    experiment: Experiment, dataset: Dataset, draws: Randomness | None, progress: Progress
) -> Plan:
    """Return a run's plan, and have what it needs at hand: encoders, and their features.

    What was decided by the data, and what the guarantee leaves of a patient, is told.

    Raises:
        InputError: The settings and the data don't go together.
    """
    if experiment.data.kind == "manifest":
        progress.stage(told_sizes(experiment.data, dataset.index.shapes))
    pooled = paradigms.is_pooled(experiment)
    plan = make_plan(experiment, dataset.index, pooled=pooled, randomness=draws)
    if plan.privacy is not None and plan.privacy.audit is not None:
        progress.stage(f"Audit: {plan.privacy.audit}")
    public_encoders.ensure(plan.spec, progress.stage)
    _check_transfer(plan)
    if warning := patient_warning(plan, dataset):
        progress.stage(f"Warning: {warning}")
    encode_ahead(plan, dataset, progress.stage)
    return plan


def _check_transfer(plan: Plan) -> None:
    earlier: list[Experiment] = []
    link = plan.spec.config.transfer
    while link is not None:
        config = Path(link.run) / "config.yaml"
        if not config.is_file():
            raise InputError(
                "model.transfer.run", link.run, "holds no run: no config.yaml is there"
            )
        earlier.append(load(config))
        link = earlier[-1].model.transfer
    transfer.check(plan, earlier)
