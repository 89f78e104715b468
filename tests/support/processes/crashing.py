"""A run that is killed at each of its writes and resumed: run by `test_crashes.py`.

    python -m tests.support.processes.crashing FOLDER STRIDE

A process is forked for every STRIDE-th moment. It begins a run in a folder that holds an older one,
and is killed by SIGKILL there: before a flush, with what was to be written cut off, or on either
side of a rename. The run is resumed, killed once more as far in, and resumed to the end. What its
folder holds then must be what an undisturbed run's does.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import torch

from fedfuse_ray.errors import InputError
from fedfuse_ray.privacy.accounting import budget  # noqa: F401  imported once, not in every child
from fedfuse_ray.runs import running
from fedfuse_ray.runs.sealing import LedgerSeal
from tests.support.federations import dataset_of, rows_of, scores_of, tiny

SETTINGS = ("training.rounds=3",)
TABLES = ("rounds.parquet", "institutions.parquet")
PLAIN = ("privacy_ledger.jsonl", "evaluation.json", "config.yaml")


class Moments:
    """Counts the moments at which a run can be killed, and kills it at one."""

    def __init__(self, fatal: int = 0) -> None:
        self.fatal, self.count = fatal, 0
        self.fsync, self.replace = os.fsync, os.replace

    def passed(self, handle: int | None = None) -> None:
        self.count += 1
        if self.count == self.fatal:
            if handle is not None:
                os.ftruncate(handle, max(0, os.fstat(handle).st_size - 9))
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        def fsync(handle):
            self.passed(handle)
            self.fsync(handle)

        def replace(source, target):
            self.passed()
            self.replace(source, target)
            self.passed()

        os.fsync, os.replace = fsync, replace

    def remove(self) -> None:
        os.fsync, os.replace = self.fsync, self.replace


def killed(work, moment: int) -> bool:
    """Do something in a child that is killed at a moment; whether it lived to see it."""
    child = os.fork()
    if not child:
        Moments(moment).install()
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status) == signal.SIGKILL
    assert os.WEXITSTATUS(status) == 0
    return False


def begun(folder: Path, older: Path) -> bool:
    """Whether there is a run to resume that is not the older one; parts of two are none."""
    try:
        LedgerSeal.reopen(folder, None)
    except InputError:
        return False
    config = folder / "config.yaml"
    return config.is_file() and config.read_text() != (older / "config.yaml").read_text()


def differences(folder: Path, whole: Path) -> list[str]:
    """Return which files are not the undisturbed run's."""
    found = [t for t in TABLES if rows_of(folder, t) != rows_of(whole, t)]
    found += [n for n in PLAIN if (folder / n).read_text() != (whole / n).read_text()]
    found += ["summary"] if scores_of(folder) != scores_of(whole) else []
    # A kill between a checkpoint and the removal of the last but two leaves that one.
    names = [{p.name for p in g.iterdir()} for g in (folder, whole)]
    found += [f"{names[0] ^ names[1]} at the top"] if names[0] != names[1] else []
    return found + [f"{p.name} left behind" for p in folder.rglob(".*")]


def main() -> None:
    folder, stride = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    experiment = tiny(*SETTINGS, paradigm="federated_dp")
    running.run(tiny("seed=1", *SETTINGS, paradigm="federated_dp"), folder / "older")
    dataset_of(experiment)  # It is made once, and then found: no write of the run.
    moments = Moments()
    moments.install()
    running.run(experiment, folder / "whole")
    moments.remove()
    failures, early, tried = [], 0, range(1, moments.count + 1, stride)
    for moment in tried:
        out = folder / "broken"
        shutil.copytree(folder / "older", out)
        if not killed(lambda: running.run(experiment, out), moment):  # noqa: B023
            failures.append(f"moment {moment} did not come")
        if begun(out, folder / "older"):
            killed(lambda: running.resume(out), moment)  # noqa: B023
            running.resume(out)
        else:
            running.run(experiment, out)
            early += 1
        wrong = differences(out, folder / "whole")
        failures += [f"killed at moment {moment}: {name}" for name in wrong]
        shutil.rmtree(out)
    print(
        json.dumps({"tried": len(tried), "of": moments.count, "early": early, "failures": failures})
    )


if __name__ == "__main__":
    main()
