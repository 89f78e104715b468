"""A run between its preparation and its summary: what it is made of, and how it ends."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from fedfuse_ray.data.dataset import Dataset
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.rounds.executor import Executor
from fedfuse_ray.report import RunStore, Summary, write_run_report
from fedfuse_ray.runs.progress import Progress
from fedfuse_ray.runs.sealing import LedgerSeal
from fedfuse_ray.runs.secrets import forget

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Ongoing:
    """A run that goes on: who trains what, where, and who is told.

    `began` is on the clock of `time.perf_counter`; `startup_seconds` is what starting the
    participants took.
    """

    plan: Plan
    dataset: Dataset
    executor: Executor
    store: RunStore
    seal: LedgerSeal
    progress: Progress
    began: float
    startup_seconds: float = 0.0

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints."""
        return self.store.folder / CHECKPOINTS

    def finish(self, summary: Summary) -> Summary:
        """Write the summary, seal the folder, draw the report; returns the summary with times."""
        times = {
            "wall_seconds": time.perf_counter() - self.began,
            "startup_seconds": self.startup_seconds,
        }
        timed = summary.time.model_copy(update=times)
        summary = self.store.write_summary(summary.model_copy(update={"time": timed}))
        self.seal.finish("finished", summary.weights_sha256)
        forget(self.store.folder)
        self.progress.stage("Writing the report")
        write_run_report(self.store.folder)
        return summary
