"""One experiment from its configuration on: prepare, start the participants, train them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from fedfuse_ray.accounts.entry import admitted, enter
from fedfuse_ray.accounts.terms import AccountTerms, forget_note
from fedfuse_ray.config import Experiment, dump
from fedfuse_ray.data.dataset import prepare
from fedfuse_ray.federation.checkpoints import checkpoint as checkpoints
from fedfuse_ray.federation.plan import feasibility, paradigms
from fedfuse_ray.federation.rounds.executor import Executor
from fedfuse_ray.report import RunStore, Summary, environment
from fedfuse_ray.runs.alone import train_alone
from fedfuse_ray.runs.federated import train_federation
from fedfuse_ray.runs.ongoing import CHECKPOINTS, Ongoing
from fedfuse_ray.runs.planning import planned_run
from fedfuse_ray.runs.progress import Progress, Several, Silent
from fedfuse_ray.runs.reading import read_resumed
from fedfuse_ray.runs.sealing import LedgerSeal
from fedfuse_ray.runs.secrets import randomness_of


def run(
    experiment: Experiment,
    out: Path,
    *,
    executor: Executor | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    job: Mapping[str, str] | None = None,
    account: AccountTerms | None = None,
) -> Summary:
    """Run an experiment and write its folder, where it replaces an older run's results.

    Without an executor it runs where `execution.executor` says. `resume` continues from the
    folder's last checkpoint. `job` is what Ray's dashboard says of a job that holds more than this
    run. `account` is where the run's charges to its records are kept, and their budget.

    Raises:
        OverBudgetError: It would exceed the account's budget; nothing was written.
        InputError: The experiment or its data can't be used.
        InstitutionError: An institution failed; carries its traceback.
    """
    began = time.perf_counter()
    progress = progress or Silent()
    experiment = paradigms.resolve(experiment)
    feasibility.check_units(experiment)
    feasibility.check_sources(experiment)
    kept = admitted(experiment, out, account or AccountTerms(), resume=resume)
    feasibility.check_scores(experiment)
    progress.stage("Preparing specimens")
    dataset = prepare(
        experiment.data, experiment.institutions, seed=experiment.seed, replicas=experiment.replicas
    )
    # Only now is an older run's folder touched: whatever is wrong with the input has been told.
    store, seal = _open_folder(experiment, out, resume=resume)
    with closing(executor or make_executor(experiment)) as executor:
        draws = randomness_of(experiment, out, resume=resume)
        plan = planned_run(experiment, dataset, draws, progress)
        entry = enter(plan, dataset, out, kept, resume=resume)
        ongoing = Ongoing(plan, dataset, executor, store, seal, entry, progress, began)
        try:
            return _train(ongoing, resume, job)
        except BaseException:
            entry.withdraw()
            raise


def resume(
    folder: Path, *, executor: Executor | None = None, progress: Progress | None = None
) -> Summary:
    """Continue a run that was interrupted, to the identical result.

    Raises:
        InputError: The folder holds no run.
    """
    begun = read_resumed(folder)
    return run(begun, folder, executor=executor, resume=True, progress=progress)


def _open_folder(experiment: Experiment, out: Path, *, resume: bool) -> tuple[RunStore, LedgerSeal]:
    """Return the writers of a run's folder; that of a fresh run is laid out first."""
    store, key_file = RunStore(out), experiment.execution.signing_key
    if resume:
        return store, LedgerSeal.reopen(out, key_file)
    forget_note(out)
    seal = LedgerSeal.begin(out, key_file, dump(experiment))
    checkpoints.clear(out / CHECKPOINTS)
    store.start(dump(experiment), environment())
    return store, seal


def make_executor(experiment: Experiment) -> Executor:
    """Return the executor that the config names. Ray is imported only when it is asked for."""
    if experiment.execution.executor == "serial":
        from fedfuse_ray.federation.rounds.serial import SerialExecutor

        return SerialExecutor()
    from actors.ray_executor import RayExecutor

    return RayExecutor(experiment.execution)


def _train(ongoing: Ongoing, resume: bool, job: Mapping[str, str] | None) -> Summary:
    """Start the participants, and train them to the run's end."""
    plan = ongoing.plan
    ongoing.progress.stage(f"Starting {len(plan.participants)} participants")
    starting = time.perf_counter()
    if ongoing.executor.kind == "ray":
        ongoing = _on_ray(ongoing, job)
    ongoing.executor.start(plan, ongoing.dataset.folder)
    ongoing = replace(ongoing, startup_seconds=time.perf_counter() - starting)
    if paradigms.trains_alone(plan.experiment):
        return train_alone(ongoing)
    return train_federation(ongoing, resume=resume)


def _on_ray(ongoing: Ongoing, job: Mapping[str, str] | None) -> Ongoing:
    """Join Ray as a job that says what it is, and have its metrics told of each round."""
    from actors.cluster import connect
    from actors.metrics import RayMetrics

    experiment, folder = ongoing.plan.experiment, ongoing.store.folder
    described = {
        "preset": experiment.preset,
        "paradigm": experiment.paradigm,
        "seed": str(experiment.seed),
        "results": str(folder.absolute()),
    }
    connect(experiment.execution, job or described)
    metrics = RayMetrics(experiment, folder.absolute().name)
    return replace(ongoing, progress=Several((metrics, ongoing.progress)))
