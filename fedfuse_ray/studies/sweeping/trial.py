"""One trial: a federation in this process, begun or continued in its folder, round by round."""

from __future__ import annotations

import fcntl
import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedfuse_ray.config import Experiment, load
from fedfuse_ray.errors import OverBudgetError
from fedfuse_ray.report.store import read_rounds
from fedfuse_ray.runs.progress import Progress, Several, Silent
from fedfuse_ray.studies.sweeping import account, store

if TYPE_CHECKING:
    from fedfuse_ray.federation.rounds.executor import Executor
    from fedfuse_ray.report.rows import RoundRows

_LOCK_SECONDS = 60.0


class Stopped(Exception):
    """The search has given this trial up."""


@dataclass(frozen=True)
class Step:
    """A round that is done, from 1; of those who train alone, how many are done.

    The overall accuracy is the last one known where this round was not scored; None before one is.
    """

    round: int
    total: int
    accuracy: float | None


class Trial:
    """A federation in a thread, which goes on by one round at each `step`.

    The thread holds still between steps, so that a search which stops the trial after a round stops
    it at that very round. The executor is closed at the end, to be started again by the next trial;
    the progress is who else is told of each round that is run.
    """

    def __init__(
        self,
        folder: Path,
        executor: Callable[[Experiment], Executor],
        progress: Callable[[Experiment], Progress] = lambda experiment: Silent(),
    ) -> None:
        self._folder, self._executor, self._progress = folder, executor, progress
        self._steps: queue.Queue[Step | store.Outcome] = queue.Queue()
        self._go = threading.Semaphore(0)
        self._stopping = False
        self._accuracy: float | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def step(self) -> Step | store.Outcome:
        """Run the next round; at the end the outcome."""
        self._go.release()
        return self._steps.get()

    def stop(self) -> None:
        """Give the trial up, where it still runs, and wait until its folder is left alone."""
        self._stopping = True
        while self._thread.is_alive():
            self._go.release()
            self._thread.join(0.05)

    def stage(self, text: str) -> None:
        """Nobody is told of stages."""

    def advanced(self, done: int, total: int, what: str, rows: RoundRows | None) -> None:
        """Hand out a round, and hold still until the next is asked for."""
        self._hand_out(done, total, rows[0].accuracy if rows else None)

    def _hand_out(self, done: int, total: int, accuracy: float | None) -> None:
        self._accuracy = self._accuracy if accuracy is None else accuracy
        self._steps.put(Step(done, total, self._accuracy))
        self._wait()

    def _wait(self) -> None:
        self._go.acquire()
        if self._stopping:
            raise Stopped

    def _run(self) -> None:
        began = time.time()
        try:
            self._wait()
            with locked(self._folder):
                outcome = store.read_outcome(self._folder)
                if outcome is None or outcome.status == store.FAILED:
                    outcome = self._federate(began)
                    if outcome.status != store.REFUSED:
                        store.write_outcome(self._folder, outcome)
                else:
                    self._replay()
        except Stopped:
            outcome = store.Outcome(store.STOPPED, began, time.time())
        except Exception:
            outcome = store.Outcome(store.FAILED, began, time.time(), traceback.format_exc())
        self._steps.put(outcome)

    def _replay(self) -> None:
        """Tell a search that begins anew what an ended trial told the one before."""
        rounds = read_rounds(self._folder).to_pylist()
        for row in rounds:
            self._hand_out(row["round"], len(rounds), row["accuracy"])

    def _federate(self, began: float) -> store.Outcome:
        from fedfuse_ray.accounts.entry import settle_stopped
        from fedfuse_ray.privacy.accounting.ledger import read_ledger
        from fedfuse_ray.runs import running  # torch, which only processes that train need
        from fedfuse_ray.runs.sealing import LEDGER, LedgerSeal
        from fedfuse_ray.runs.secrets import forget

        status, error, sweep = store.DONE, "", self._folder.parent.parent
        try:
            experiment = load(self._folder / store.EXPERIMENT)
            # The settings are the last file that a run writes at its start.
            begun = (self._folder / "config.yaml").is_file()
            running.run(
                experiment,
                self._folder,
                executor=self._executor(experiment),
                resume=begun,
                progress=Several((self._progress(experiment), self)),
                account=account.terms_of(sweep),
            )
        except OverBudgetError as refusal:
            account.refuse(sweep, refusal)
            status, error = store.REFUSED, refusal.remedy
        except Stopped:
            status = store.STOPPED
            LedgerSeal.reopen(self._folder, experiment.execution.signing_key).finish("stopped")
            forget(self._folder)
            settle_stopped(self._folder, read_ledger(self._folder / LEDGER))
        except Exception:
            status, error = store.FAILED, traceback.format_exc()
        return store.Outcome(status, began, time.time(), error)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a trial's folder for this process alone.

    After a sweep was killed its workers may live on for a moment; whoever continues waits for
    them. The lock goes with the process that holds it.

    Raises:
        TimeoutError: Somebody else still works in the folder.
    """
    with (folder / ".lock").open("w") as file:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{folder}: another process works in it") from None
                time.sleep(0.05)
        yield
