"""Participants that train apart, each on its own data, to one summary over all."""

from __future__ import annotations

from collections.abc import Iterator

from fedfuse_ray import blocks
from fedfuse_ray.federation.checkpoints import alone as alone_store
from fedfuse_ray.federation.messages.records import Alone
from fedfuse_ray.federation.rounds.loop import final_views
from fedfuse_ray.federation.rounds.scoring import alone_scores
from fedfuse_ray.report import Summary
from fedfuse_ray.runs.evaluation import evaluation
from fedfuse_ray.runs.ongoing import Ongoing
from fedfuse_ray.runs.rows import alone_rows
from fedfuse_ray.runs.summary import summarise


def train_alone(ongoing: Ongoing) -> Summary:
    """Train every participant on its own data alone, and return what the run came to."""
    names = [p.name for p in ongoing.plan.participants]
    ongoing.progress.stage(f"Training {len(names)} participants apart")
    finished = {name: a for name, a in _each_alone(ongoing, names)}
    ordered = [finished[name] for name in names]
    scores = alone_scores(ongoing.plan, [a.scores for a in ordered])
    ongoing.seal.rewind(0)
    ongoing.store.truncate(0)
    for row, institutions in alone_rows(ongoing.plan, ordered):
        ongoing.store.append_round(row, institutions)
    ongoing.store.write_evaluation(evaluation(ongoing.plan, scores))
    digest = blocks.sha256(
        {f"{a.scores.name}|{name}": v for a in ordered for name, v in a.weights.items()}
    )
    return ongoing.finish(summarise(ongoing.plan, scores, ongoing.store.tables(), digest, 0))


def _each_alone(ongoing: Ongoing, names: list[str]) -> Iterator[tuple[str, Alone]]:
    """Yield each participant's training, from an interrupted run's folder or done now."""
    kept = {name: alone_store.read(ongoing.checkpoints, name) for name in names}
    missing = [name for name in names if kept[name] is None]
    count = 0
    if missing:
        ongoing.entry.charge(())
    for name in names:
        if (alone := kept[name]) is not None:
            count += 1
            yield name, alone
    for alone in ongoing.executor.train_alone(missing, final_views(ongoing.plan)):
        count += 1
        alone_store.save(ongoing.checkpoints, alone)
        ongoing.progress.advanced(count, len(names), alone.scores.name, None)
        yield alone.scores.name, alone
