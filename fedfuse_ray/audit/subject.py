"""What is audited: a preset that is trained for the purpose, or a finished run's folder."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from fedfuse_ray.blocks import Blocks
from fedfuse_ray.config import Experiment, load
from fedfuse_ray.data.dataset import Dataset
from fedfuse_ray.errors import BudgetSpentError, InputError
from fedfuse_ray.federation.checkpoints import checkpoint as checkpoints
from fedfuse_ray.federation.plan import feasibility, paradigms, public_encoders
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.plan.prepared import prepared
from fedfuse_ray.federation.rounds.charging import Charging
from fedfuse_ray.federation.rounds.serial import SerialExecutor
from fedfuse_ray.privacy.accounting.epsilon import epsilon_by_institution, largest
from fedfuse_ray.privacy.accounting.ledger import read_ledger

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Subject:
    """A federation and, once trained, its released model; `folder` is None unless it is a run.

    `rounds` are those that released something. Epsilon is the ledger's; None where nothing is
    private.
    """

    plan: Plan
    dataset: Dataset
    rounds: int
    epsilon: float | None
    folder: Path | None

    def weights(self, tell: Tell) -> Blocks:
        """Return the released model: the run's, or one trained now, in this process."""
        if self.folder is not None:
            return checkpoints.read(_checkpoint(self.plan, self.folder)).model
        tell(f"Training {self.rounds} rounds")
        with closing(SerialExecutor()) as executor, tempfile.TemporaryDirectory() as scratch:
            executor.start(self.plan, self.dataset.folder)
            executor.load(None)
            for number in range(1, self.rounds + 1):
                executor.train(number)
            executor.save(Path(scratch))
            path = checkpoints.path_of(Path(scratch), self.rounds)
            return checkpoints.read(path).model


def of_experiment(experiment: Experiment, tell: Tell) -> Subject:
    """Prepare an experiment for its audit; nothing is trained yet.

    Raises:
        InputError: The experiment can't be used, or has no federation.
    """
    plan, dataset = _planned(experiment, tell)
    charging = Charging.open(plan)
    rounds = 0
    for number in range(1, experiment.training.rounds + 1):
        try:
            charging.charge(number)
        except BudgetSpentError:
            break
        rounds = number
    if not rounds:
        raise BudgetSpentError("the privacy budget does not allow a single round; grant more")
    return Subject(plan, dataset, rounds, charging.epsilon, None)


def of_run(folder: Path, tell: Tell) -> Subject:
    """Open a run's folder for its audit.

    Raises:
        InputError: The folder holds no run of a federation.
    """
    config = folder / "config.yaml"
    if not config.is_file():
        raise InputError("DIR", folder, "no run's folder: config.yaml is missing")
    plan, dataset = _planned(load(config), tell)
    path = _checkpoint(plan, folder)
    terms = plan.privacy
    if terms is None:
        return Subject(plan, dataset, checkpoints.round_of(path), None, folder)
    events = read_ledger(folder / "privacy_ledger.jsonl").events
    if not events:
        raise InputError(str(folder), "privacy_ledger.jsonl", "is empty; nothing was released")
    if terms.spends_adaptively:
        terms = terms.as_charged(events)
        plan = replace(plan, privacy=terms)
    epsilon = largest(epsilon_by_institution(events, terms.config.delta, terms.config.accountant))
    return Subject(plan, dataset, max(event.round for event in events), epsilon, folder)


def _planned(experiment: Experiment, tell: Tell) -> tuple[Plan, Dataset]:
    experiment = paradigms.resolve(experiment)
    if paradigms.trains_alone(experiment):
        raise InputError(
            "paradigm", experiment.paradigm, "releases no updates; audit a federated paradigm"
        )
    feasibility.check_units(experiment)
    tell("Preparing specimens")
    plan, dataset = prepared(experiment)
    public_encoders.ensure(plan.spec, tell)
    return plan, dataset


def _checkpoint(plan: Plan, folder: Path) -> Path:
    path = checkpoints.latest(folder / "checkpoints", plan.experiment.training.rounds)
    if path is None:
        raise InputError(str(folder), "checkpoints", "holds no readable checkpoint of the run")
    return path
