"""Seconds of a sweep, and of the pause between one trial's end and the next one's start.

    python -m benchmarks.sweep [--out FILE] [--quick]

Runs tune_configs/smoke.yaml as a user does, and reads when its trials began and ended. The ratios
are a pause, and the whole sweep, against what its trials themselves took.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.results import Result, on_one_thread, parser, publish

ROOT = Path(__file__).resolve().parents[1]
_SECONDS = 600


def measure(settings: Sequence[str]) -> Result:
    """Run the sweep and return its seconds and ratios."""
    source = ROOT / "tune_configs" / "smoke.yaml"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "fedfuse_ray.sweep", str(source), "--no-progress"]
        command += ["--out", folder, *(word for s in settings for word in ("--set", s))]
        began = time.perf_counter()
        subprocess.run(command, check=True, timeout=_SECONDS, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - began
        rows = pq.read_table(Path(folder) / "trials.parquet").to_pylist()
    pauses = _pauses([(row["started"], row["ended"]) for row in rows])
    trials = [row["seconds"] for row in rows]
    side_by_side = len(rows) - len(pauses)
    return Result(
        "sweep",
        {"settings": list(settings)},
        {
            "pause/trial": [pause / (sum(trials) / len(trials)) for pause in pauses],
            "sweep/trials": [wall / (sum(trials) / side_by_side)],
        },
        {"sweep": [wall], "trial": trials, "pause": pauses},
        details={"trials": len(rows), "side by side": side_by_side, "longest pause": max(pauses)},
    )


def _pauses(spans: Sequence[tuple[float, float]]) -> list[float]:
    """Return the time from a trial's end to the start of the one that followed it.

    A trial follows the latest that had ended when it began and was followed by no other.
    """
    free: list[float] = []
    pauses = []
    ends = sorted(end for _, end in spans)
    for begun in sorted(start for start, _ in spans):
        free = sorted([*free, *(end for end in ends if end <= begun)])
        ends = [end for end in ends if end > begun]
        if free:
            pauses.append(begun - free.pop())
    return pauses


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__).parse_args(arguments)
    settings = ["training.rounds=2", "space.privacy.clip_norm=[0.5]"] if options.quick else []
    on_one_thread()
    publish(measure(settings), options.out)


if __name__ == "__main__":
    main()
