"""One experiment from config to report: prepare, start, run the rounds, write the folder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from fedfuse_ray import blocks
from fedfuse_ray.config import Experiment, dump, load
from fedfuse_ray.data.dataset import Dataset, prepare
from fedfuse_ray.errors import BudgetSpentError, InputError
from fedfuse_ray.federation.checkpoints import alone as alone_store
from fedfuse_ray.federation.plan import paradigms, public_encoders, transfer
from fedfuse_ray.federation.checkpoints import checkpoint as checkpoints
from fedfuse_ray.federation.rounds.charging import Charging
from fedfuse_ray.federation.rounds.executor import Executor
from fedfuse_ray.federation.plan.plan import Plan, make_plan
from fedfuse_ray.federation.messages.records import Alone
from fedfuse_ray.federation.rounds.loop import Clock, final_views, run_rounds
from fedfuse_ray.federation.rounds.scoring import alone_scores, final_scores
from fedfuse_ray.privacy.accounting.ledger import read_ledger
from fedfuse_ray.runs.progress import Progress, Several, Silent
from fedfuse_ray.runs.reading import read_resumed
from fedfuse_ray.report import RunStore, Summary, environment, write_run_report
from fedfuse_ray.runs.results import (
    alone_rows,
    evaluation,
    fp32_uplink_bytes,
    privacy_summary,
    round_rows,
    summarise,
)
from fedfuse_ray.runs.sealing import LEDGER, LedgerSeal

_CHECKPOINTS = "checkpoints"


def run(
    experiment: Experiment,
    out: Path,
    *,
    executor: Executor | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    job: Mapping[str, str] | None = None,
) -> Summary:
    """Run an experiment and write its folder.

    Args:
        experiment: What to run.
        out: The result folder; an older run's results in it are replaced.
        executor: Where to run; by default what `execution.executor` names.
        resume: Continue from the folder's last checkpoint instead.
        progress: Who is told; under Ray its metrics are told as well.
        job: What Ray's dashboard says of a job that holds more than this run.

    Raises:
        InputError: The experiment or its data can't be used.
        InstitutionError: An institution failed; carries its traceback.
    """
    began = time.perf_counter()
    progress = progress or Silent()
    experiment = paradigms.resolve(experiment)
    store = RunStore(out)
    key_file = experiment.execution.signing_key
    if resume:
        seal = LedgerSeal.reopen(out, key_file)
    else:
        seal = LedgerSeal.begin(out, key_file, dump(experiment))
        checkpoints.clear(out / _CHECKPOINTS)
        store.start(dump(experiment), environment())
    with closing(executor or make_executor(experiment)) as executor:
        progress.stage("Preparing specimens")
        dataset = prepare(
            experiment.data,
            experiment.institutions,
            seed=experiment.seed,
            replicas=experiment.replicas,
        )
        plan = make_plan(experiment, dataset.index, pooled=paradigms.is_pooled(experiment))
        if plan.privacy is not None and plan.privacy.audit is not None:
            progress.stage(f"Audit: {plan.privacy.audit}")
        public_encoders.ensure(plan.spec, progress.stage)
        _check_transfer(plan)
        return _run(_Run(plan, dataset, executor, store, seal, progress, began), resume, job)


def resume(
    folder: Path, *, executor: Executor | None = None, progress: Progress | None = None
) -> Summary:
    """Continue a run that was interrupted, to the identical result.

    Raises:
        InputError: The folder holds no run.
    """
    begun = read_resumed(folder)
    return run(begun, folder, executor=executor, resume=True, progress=progress)


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


def make_executor(experiment: Experiment) -> Executor:
    """Return the executor that the config names. Ray is imported only when it is asked for."""
    if experiment.execution.executor == "serial":
        from fedfuse_ray.federation.rounds.serial import SerialExecutor

        return SerialExecutor()
    from actors.ray_executor import RayExecutor

    return RayExecutor(experiment.execution)


@dataclass(frozen=True)
class _Run:
    plan: Plan
    dataset: Dataset
    executor: Executor
    store: RunStore
    seal: LedgerSeal
    progress: Progress
    began: float

    @property
    def checkpoints(self) -> Path:
        return self.store.folder / _CHECKPOINTS


def _run(run: _Run, resume: bool, job: Mapping[str, str] | None) -> Summary:
    run.progress.stage(f"Starting {len(run.plan.participants)} participants")
    starting = time.perf_counter()
    if run.executor.kind == "ray":
        run = _on_ray(run, job)
    run.executor.start(run.plan, run.dataset.folder)
    startup = time.perf_counter() - starting
    if paradigms.trains_alone(run.plan.experiment):
        return _alone(run, startup)
    return _federation(run, startup, resume)


def _on_ray(run: _Run, job: Mapping[str, str] | None) -> _Run:
    """Join Ray as a job that says what it is, and have its metrics told of each round."""
    from actors.cluster import connect
    from actors.metrics import RayMetrics

    experiment, folder = run.plan.experiment, run.store.folder
    described = {
        "preset": experiment.preset,
        "paradigm": experiment.paradigm,
        "seed": str(experiment.seed),
        "results": str(folder.absolute()),
    }
    connect(experiment.execution, job or described)
    metrics = RayMetrics(experiment, folder.absolute().name)
    return replace(run, progress=Several((metrics, run.progress)))


def _federation(run: _Run, startup: float, resume: bool) -> Summary:
    total = run.plan.experiment.training.rounds
    # A checkpoint of a round that the tables do not hold would leave a gap in them.
    path = checkpoints.latest(run.checkpoints, min(total, run.store.last_round)) if resume else None
    done = checkpoints.round_of(path) if path else 0
    if resume:
        run.progress.stage(f"Continuing after round {done}")
        run.seal.rewind(done)
        run.store.truncate(done)
    run.executor.load(path, run.checkpoints)
    earlier = read_ledger(run.store.path(LEDGER)) if resume else None
    charging = Charging.open(run.plan, earlier)

    terms = run.plan.privacy
    adaptive = terms is not None and terms.spends_adaptively

    def charge(number: int) -> None:
        factor = run.executor.noise_factor() if adaptive else 1.0
        run.seal.append(charging.charge(number, factor))

    run.progress.stage(f"Training {total} rounds")
    clock = _clock(run.store) if done else Clock()
    for finished in run_rounds(run.plan, run.executor, done + 1, run.checkpoints, charge, clock):
        done = finished.number
        rows = round_rows(run.plan, finished, charging.epsilon, charging.epsilons)
        run.store.append_round(*rows, finished.outcome.aggregation.refused)
        run.progress.advanced(done, total, "round", rows)
    if done < total:
        run.progress.stage(f"The privacy budget is spent after {done} of {total} rounds")
    if not done:
        raise BudgetSpentError("the privacy budget does not allow a single round; grant more")
    digest = run.executor.sha256()
    fp32_bytes = fp32_uplink_bytes(run.plan, run.executor.block_sizes())
    scores = final_scores(run.plan, run.executor.evaluate(total, final_views(run.plan)))
    run.store.write_evaluation(evaluation(run.plan, scores))
    summary = summarise(run.plan, scores, run.store.tables(), digest, fp32_bytes)
    guarantee = privacy_summary(run.plan, charging.epsilon, charging.epsilons, done)
    return _finish(run, summary.model_copy(update={"privacy": guarantee}), startup)


def _alone(run: _Run, startup: float) -> Summary:
    names = [p.name for p in run.plan.participants]
    run.progress.stage(f"Training {len(names)} participants apart")
    finished = {name: a for name, a in _each_alone(run, names)}
    ordered = [finished[name] for name in names]
    scores = alone_scores(run.plan, [a.scores for a in ordered])
    run.seal.rewind(0)
    run.store.truncate(0)
    for row, institutions in alone_rows(run.plan, ordered):
        run.store.append_round(row, institutions)
    run.store.write_evaluation(evaluation(run.plan, scores))
    digest = blocks.sha256(
        {f"{a.scores.name}|{name}": v for a in ordered for name, v in a.weights.items()}
    )
    return _finish(run, summarise(run.plan, scores, run.store.tables(), digest, 0), startup)


def _clock(store: RunStore) -> Clock:
    """Return the virtual clock after the last round that a run's folder holds."""
    rounds, institutions = store.tables()
    last = rounds.to_pylist()[-1]
    missed = tuple(
        row["institution"]
        for row in institutions.to_pylist()
        if row["round"] == last["round"]
        and (
            row["status"] in ("absent", "not selected")
            or (row["status"] == "failed" and not row["steps"])
        )
    )
    return Clock(last["simulated_start"] + last["simulated_seconds"], missed)


def _each_alone(run: _Run, names: list[str]) -> Iterator[tuple[str, Alone]]:
    """Yield each participant's training, from an interrupted run's folder or done now."""
    kept = {name: alone_store.read(run.checkpoints, name) for name in names}
    missing = [name for name in names if kept[name] is None]
    count = 0
    for name in names:
        if (alone := kept[name]) is not None:
            count += 1
            yield name, alone
    for alone in run.executor.train_alone(missing, final_views(run.plan)):
        count += 1
        alone_store.save(run.checkpoints, alone)
        run.progress.advanced(count, len(names), alone.scores.name, None)
        yield alone.scores.name, alone


def _finish(run: _Run, summary: Summary, startup: float) -> Summary:
    wall = time.perf_counter() - run.began
    timed = summary.time.model_copy(update={"wall_seconds": wall, "startup_seconds": startup})
    summary = run.store.write_summary(summary.model_copy(update={"time": timed}))
    run.seal.finish("finished", summary.weights_sha256)
    run.progress.stage("Writing the report")
    write_run_report(run.store.folder)
    return summary
