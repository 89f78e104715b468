"""A run between its preparation and its summary: what it is made of, and how it ends."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from fedfuse_ray.accounts.entry import Entry, digest_of
from fedfuse_ray.data.dataset import Dataset
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.rounds.executor import Executor
from fedfuse_ray.privacy.accounting.ledger import read_ledger
from fedfuse_ray.report import RunStore, Summary, write_run_report
from fedfuse_ray.report.store import read_refused
from fedfuse_ray.runs.progress import Progress
from fedfuse_ray.runs.sealing import LEDGER, LedgerSeal
from fedfuse_ray.runs.secrets import forget
from fedfuse_ray.runs.summary import with_total

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
    entry: Entry
    progress: Progress
    began: float
    startup_seconds: float = 0.0

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints."""
        return self.store.folder / CHECKPOINTS

    def finish(self, summary: Summary) -> Summary:
        """Write the summary, seal the folder, draw the report.

        Returns:
            The summary, with its times, and the total of all runs on the same records.
        """
        times = {
            "wall_seconds": time.perf_counter() - self.began,
            "startup_seconds": self.startup_seconds,
        }
        timed = summary.time.model_copy(update=times)
        summary = summary.model_copy(update={"time": timed})
        summary = self.store.write_summary(self._settled(summary))
        self.seal.finish("finished", summary.weights_sha256)
        forget(self.store.folder)
        self.progress.stage("Writing the report")
        write_run_report(self.store.folder)
        return summary

    def _settled(self, summary: Summary) -> Summary:
        """Settle the run's entry in its account, and return the summary with the total."""
        path = self.store.path(LEDGER)
        ledger = read_ledger(path) if path.is_file() else ()
        # A message that is in no sum could differ from one run to the next, and nobody would know.
        unseen = self.plan.asynchronous or bool(read_refused(self.store.folder))
        releases = "" if unseen else digest_of(summary.weights_sha256, ledger)
        return with_total(summary, self.entry.settle(ledger, releases))
