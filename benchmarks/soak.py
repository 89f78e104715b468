"""Memory of every process over 500 rounds: flat, or how steeply it grows.

    python -m benchmarks.soak [--rounds 500] [--every 10] [--paradigm NAME] [--out FILE] [--quick]

Preset `tiny` runs on Ray in this process: as many rounds to warm up, in which buffers fill and
allocators settle, then the rounds that are measured. After every tenth the memory is read that each
process alone has written to: driver, parameter server, hosts, raylet, GCS and Ray's agents. Through
the readings goes a line by the Theil-Sen estimator, which a few steps of an allocator do not bend,
with Sen's 95% confidence interval of the slope.

Ray's own processes grow with the hours, whether anything runs or not: afterwards Ray is left idle
for as long as the measured rounds took, and read as often. That is the control, in KB for the time
of a round.

What an interval lies above its control is the rounds' own growth. A process is flat where that is
less than can be told apart: the noise (the spread of the readings around their line, over the
measured rounds), or 1 KB, a page of memory in four rounds. Anything more is a leak: the benchmark
says so and ends with status 1.

Source: Sen, 1968, Estimates of the regression coefficient based on Kendall's tau.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from benchmarks.machine import name_of, own_bytes, tree
from benchmarks.results import Result, on_one_thread, parser, publish

CONFIDENCE = 0.95
PAGE_KB_PER_ROUND = 1.0
"""Memory is counted in pages of 4 KiB; one in four rounds is half a megabyte in five hundred."""


class Sampler:
    """Reads the memory of this process's tree as rounds are told.

    Args:
        every: Rounds between two samples.

    Attributes:
        samples: Process id to (round, bytes) pairs.
        names: Process id to what it is.
        seconds_per_round: Wall time between the first sample and the last, a round.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self.samples: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self.names: dict[int, str] = {}
        self.seconds_per_round = 0.0
        self._first = (0, 0.0)

    def stage(self, text: str) -> None:
        """Do nothing."""

    def advanced(self, done: int, total: int, what: str, rows: object) -> None:
        """Sample, if it is time."""
        if done % self._every:
            return
        now = time.perf_counter()
        if not self.samples:
            self._first = (done, now)
        else:
            self.seconds_per_round = (now - self._first[1]) / (done - self._first[0])
        for pid in tree(os.getpid()):
            if size := own_bytes(pid):
                self.samples[pid].append((done, size))
                self.names.setdefault(pid, name_of(pid))


def slope(points: Sequence[tuple[int, int]]) -> tuple[float, float, float]:
    """Return the Theil-Sen slope through (round, bytes) and its confidence interval, in KB a round.

    The interval is Sen's: with n points, the order statistics of all pairwise slopes that lie
    z sqrt(n (n - 1) (2n + 5) / 18) around the middle.

    Raises:
        ValueError: Fewer than four points.
    """
    count = len(points)
    if count < 4:
        raise ValueError(f"{count} samples give no slope; run more rounds")
    x, y = np.asarray(points, np.float64).T
    first, second = np.triu_indices(count, 1)
    slopes = np.sort((y[second] - y[first]) / (x[second] - x[first])) / 1e3
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    half = z * np.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    last = slopes.size - 1
    low, high = (int(np.clip(round((last + sign * half) / 2), 0, last)) for sign in (-1, 1))
    return float(np.median(slopes)), float(slopes[low]), float(slopes[high])


def lines(sampler: Sampler, warm_up: int, idle: Sampler) -> dict[str, dict[str, Any]]:
    """Return what each process that lived through the measured rounds did, the steepest first.

    Args:
        sampler: Read while rounds ran.
        warm_up: Rounds to leave out.
        idle: Read afterwards, its x in the time of a round.
    """
    found: dict[str, dict[str, Any]] = {}
    last = max(points[-1][0] for points in sampler.samples.values())
    for pid, points in sampler.samples.items():
        measured = [p for p in points if p[0] > warm_up]
        if len(measured) < 4 or measured[-1][0] != last:
            continue
        middle, low, high = slope(measured)
        x, y = np.asarray(measured, np.float64).T
        rest = y - middle * 1e3 * x
        control = idle.samples.get(pid, [])
        found[f"{sampler.names[pid]} ({pid})"] = {
            "kb_per_round": round(middle, 3),
            "low": round(low, 3),
            "high": round(high, 3),
            "idle": round(slope(control)[2], 3) if len(control) >= 4 else None,
            "noise": round(float(np.ptp(rest) / np.ptp(x)) / 1e3, 3),
            "first_mb": round(measured[0][1] / 1e6, 2),
            "last_mb": round(measured[-1][1] / 1e6, 2),
            "samples": len(measured),
        }
    return dict(sorted(found.items(), key=lambda item: -item[1]["kb_per_round"]))


def growth(line: Mapping[str, Any]) -> float:
    """Return the rounds' own growth of a process, relative to the most that passes for flat."""
    own = line["low"] - max(0.0, line["idle"] or 0.0)
    return float(max(0.0, own) / max(PAGE_KB_PER_ROUND, line["noise"]))


def leaks(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the processes that are not flat."""
    return [name for name, line in found.items() if growth(line) > 1.0]


def measure(rounds: int, every: int, paradigm: str) -> Result:
    """Run the federation, leave Ray idle as long, and return every process's slope."""
    from fedfuse_ray.config import load
    from fedfuse_ray.runs.running import run

    sampler, idle = Sampler(every), Sampler(every)
    experiment = load("tiny", [f"training.rounds={2 * rounds}"], paradigm=paradigm)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run(experiment, Path(folder), progress=sampler)
    seconds = time.perf_counter() - began
    _rest(idle, rounds, sampler.seconds_per_round)
    found = lines(sampler, rounds, idle)
    return Result(
        benchmark="soak",
        config={"preset": "tiny", "rounds": rounds, "every": every, "paradigm": paradigm},
        ratios={"growth/bound": [max(map(growth, found.values()))]},
        targets={"growth/bound": 1.0},
        seconds={"whole run": [seconds], "round": [sampler.seconds_per_round]},
        details={"leaks": leaks(found), **found},
    )


def _rest(idle: Sampler, rounds: int, seconds_per_round: float) -> None:
    """Read an idle Ray as often, and for as long, as the measured rounds took."""
    for done in range(1, rounds + 1):
        time.sleep(seconds_per_round)
        idle.advanced(done, rounds, "round", None)


def main(arguments: Sequence[str] | None = None) -> int:
    made = parser(__doc__)
    made.add_argument("--rounds", type=int, default=500)
    made.add_argument("--every", type=int, default=10, metavar="ROUNDS")
    made.add_argument("--paradigm", default="fedfuse_nonprivate")
    options = made.parse_args(arguments)
    if options.quick:
        options.rounds, options.every = 10, 2
    on_one_thread()
    result = measure(options.rounds, options.every, options.paradigm)
    publish(result, options.out)
    # After ten rounds nothing has settled: they show that this works, not that memory is flat.
    return 1 if result.details["leaks"] and not options.quick else 0


if __name__ == "__main__":
    sys.exit(main())
