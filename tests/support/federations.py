"""Small federations, plans, blocks and messages that tests of several folders build on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from fedfuse_ray.config import Experiment, load
from fedfuse_ray.config.settings.model import EncoderConfig, ModelConfig
from fedfuse_ray.data.dataset import Dataset, prepare
from fedfuse_ray.federation.messages import wire
from fedfuse_ray.federation.messages.updates import Update
from fedfuse_ray.federation.plan import paradigms
from fedfuse_ray.federation.plan.plan import Plan, make_plan
from fedfuse_ray.models.spec import ModelSpec
from fedfuse_ray.report import Summary

SHAPES = {"ct": (1, 16, 16), "mri": (1, 16, 16), "rgb": (3, 16, 16), "line": (1, 64)}
WALL_SECONDS = frozenset(
    {"seconds", "train_seconds", "aggregate_seconds", "evaluate_seconds", "simulated_seconds"}
)
TOTALS = {"total_epsilon", "total_runs", "unprotected_runs"}
"""What a summary says of all runs on the same records."""
DOMAINS = {"medical": ("ct", "mri"), "materials": ("rgb", "line")}

THIRD = (
    "data.domains.environmental={modalities: [satellite, aerial], classes: 4, specimens: 60}",
    "institutions=["
    "{name: med-01, domain: medical, modalities: [ct, mri]},"
    "{name: med-02, domain: medical, modalities: [ct], share: 2},"
    "{name: mat-01, domain: materials, modalities: [electron_microscopy, spectroscopy]},"
    "{name: env-01, domain: environmental, modalities: [satellite]},"
    "{name: env-02, domain: environmental, modalities: [aerial, satellite]}]",
)
"""Settings that give `tiny` a third domain, and a block with two owners of each kind."""


def tiny(*settings: str, paradigm: str = "fedfuse_nonprivate") -> Experiment:
    """Return the preset `tiny`, resolved for a paradigm and run in this process."""
    experiment = load("tiny", ["execution.executor=serial", f"paradigm={paradigm}", *settings])
    return paradigms.resolve(experiment)


def dataset_of(experiment: Experiment) -> Dataset:
    """Return the experiment's specimens, from the tests' cache."""
    return prepare(
        experiment.data,
        experiment.institutions,
        seed=experiment.seed,
        replicas=experiment.replicas,
    )


def plan_of(experiment: Experiment) -> Plan:
    """Return the experiment's plan."""
    index = dataset_of(experiment).index
    return make_plan(experiment, index, pooled=paradigms.is_pooled(experiment))


def spec_of(
    fusion: str = "attention", *, seed: int = 0, depth: int = 1, **encoder: object
) -> ModelSpec:
    """Return a network over two domains, one of them with a colour image and a signal."""
    return ModelSpec(
        config=ModelConfig(
            embedding_dim=8,
            fusion=fusion,  # type: ignore[arg-type]
            fusion_depth=depth if fusion == "intermediate" else None,
            encoder=EncoderConfig(**{"width": 4, **encoder}),  # type: ignore[arg-type]
        ),
        domains=DOMAINS,
        classes={"medical": 3, "materials": 4},
        shapes=SHAPES,
        seed=seed,
    )


def random_blocks(sizes: dict[str, int], seed: int = 0) -> dict[str, np.ndarray]:
    """Return blocks of the given sizes with standard normal values."""
    generator = np.random.default_rng(seed)
    return {name: generator.standard_normal(n).astype(np.float32) for name, n in sizes.items()}


def message(
    plan: Plan, institution: str, update: dict[str, np.ndarray], *, round: int = 1, steps: int = 1
) -> bytes:
    """Return the bytes that an institution would send of an update that it has not yet weighed."""
    sent = plan.transforms.sent(Update(update), institution, round)
    return packed(institution, sent.on_wire(), round=round, steps=steps)


def packed(
    institution: str, blocks: dict[str, np.ndarray], *, round: int = 1, steps: int = 1
) -> bytes:
    """Return blocks as a message's bytes, as they are."""
    return wire.pack(
        wire.Message(
            institution=institution,
            round=round,
            codec="fp32",
            blocks={name: vector.astype("<f4").tobytes() for name, vector in blocks.items()},
            sizes={name: vector.size for name, vector in blocks.items()},
            steps=steps,
        )
    )


def rows_of(folder: Path, name: str) -> list[dict[str, object]]:
    """Return the rows of a run's table without what the wall clock decides.

    A run without a federation has no virtual clock, and tells wall time as simulated seconds.
    """
    table = pq.read_table(folder / name)
    timed = [column for column in table.column_names if column in WALL_SECONDS]
    return list(table.drop_columns(timed).to_pylist())


def scores_of(folder: Path) -> dict[str, object]:
    """Return what a run's summary says of its own result, without clocks and executors."""
    summary = json.loads((folder / "summary.json").read_text())
    kept = {name: value for name, value in summary.items() if name not in ("time", "executor")}
    own = {name: value for name, value in kept["privacy"].items() if name not in TOTALS}
    return {**kept, "privacy": own}


def guarantee_of(summary: Summary) -> dict[str, object]:
    """Return what a run alone guarantees, without what was run on the same records before."""
    return summary.privacy.model_dump(exclude=TOTALS)
