"""Peak memory of a federation of 1,500 institutions in three rounds, and megabytes an institution.

    python -m benchmarks.memory [--replicas 500] [--out FILE] [--quick]

The command line runs preset `tiny` in a process of its own, whose whole tree is sampled: the
driver, Ray's own processes, and all actors. Memory is proportional set size (PSS), so that pages
which several processes share count once. The run without replicas says what is there anyway.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import MemoryMeter
from benchmarks.results import Result, on_one_thread, parser, publish

LIMIT_GIB = 6.0
GIB, MB = 2**30, 10**6
INSTITUTIONS_OF_TINY = 3


def measure(replicas: int, rounds: int) -> Result:
    """Run the federation small and large, and return the peaks."""
    small = run(1, rounds)
    large = run(replicas, rounds) if replicas > 1 else small
    added = INSTITUTIONS_OF_TINY * (replicas - 1)
    grown = large["meter"].peak_bytes - small["meter"].peak_bytes
    peak = large["meter"].peak_bytes
    details = {
        "institutions": INSTITUTIONS_OF_TINY * replicas,
        "peak_gib": round(peak / GIB, 3),
        "peak_gib_without_replicas": round(small["meter"].peak_bytes / GIB, 3),
        "megabytes_an_institution": round(grown / added / MB, 4) if added else None,
        "at_peak": {
            name: {"processes": count, "megabytes": round(size / MB, 1)}
            for name, (count, size) in sorted(
                large["meter"].at_peak.items(), key=lambda item: -item[1][1]
            )
        },
        "samples": large["meter"].samples,
    }
    return Result(
        benchmark="memory",
        config={"preset": "tiny", "replicas": replicas, "rounds": rounds},
        ratios={"peak/limit": [peak / (LIMIT_GIB * GIB)]},
        seconds={"whole run": [large["seconds"]]},
        targets={"peak/limit": 1.0},
        details=details,
    )


def run(replicas: int, rounds: int) -> dict[str, Any]:
    """Run the command line once and return the meter of its tree and its wall time."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "fedfuse_ray", "run", "tiny", "--executor", "ray"]
        command += ["--no-progress", "--out", str(Path(folder) / "run")]
        command += ["--set", f"replicas={replicas}", "--set", f"training.rounds={rounds}"]
        # A cache of its own, so that making the specimens is part of what is measured.
        settings = os.environ | {"FEDFUSE_RAY_CACHE": str(Path(folder) / "cache")}
        log = Path(folder) / "log"
        began = time.perf_counter()
        with log.open("w") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, env=settings)
            with MemoryMeter(process.pid) as meter:
                status = process.wait()
        if status:
            raise SystemExit(f"the run of {replicas} replicas failed:\n{log.read_text()}")
        return {"meter": meter, "seconds": time.perf_counter() - began}


def main(arguments: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--replicas", type=int, default=500)
    made.add_argument("--rounds", type=int, default=3)
    options = made.parse_args(arguments)
    if options.quick:
        options.replicas, options.rounds = 1, 1
    on_one_thread()
    publish(measure(options.replicas, options.rounds), options.out)


if __name__ == "__main__":
    main()
