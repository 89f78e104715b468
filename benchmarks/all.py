"""Run all benchmarks, and compare their ratios with the baseline: `make bench`.

    python -m benchmarks.all [--quick] [--only NAME ...] [--accept]

`--quick` uses the smallest settings and leaves out the heavy ones, to see that they still work.
`--accept` makes these results the baseline; read them first, and run on a quiet machine.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import compare

BENCHMARKS = (
    "phantoms",
    "codecs",
    "secure_aggregation",
    "rounds",
    "startup",
    "memory",
    "compression",
    "network",
    "soak",
    "sweep",
    "adaptive_privacy",
    "correlated_noise",
    "integer_noise",
)
HEAVY = (
    "memory",
    "compression",
    "network",
    "soak",
    "adaptive_privacy",
    "correlated_noise",
)


def run(names: Sequence[str], folder: Path, quick: bool) -> list[str]:
    """Run benchmarks, each in a process of its own; returns those that failed."""
    folder.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in names:
        out = folder / f"{name}.json"
        out.unlink(missing_ok=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", "--out", str(out)]
        print(f"== {name}", flush=True)
        if subprocess.run(command + ["--quick"] * quick, check=False).returncode:
            failed.append(name)
    return failed


def accept(results: Mapping[str, Mapping[str, Any]], latest: Path, baseline: Path) -> None:
    """Copy the results to the baseline, but none that were disturbed."""
    baseline.mkdir(parents=True, exist_ok=True)
    for name, result in results.items():
        if compare.is_noisy(result):
            print(f"{name}: others used the machine, so this is no baseline")
        else:
            shutil.copy(latest / f"{name}.json", baseline)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="smallest settings, heavy ones left out"
    )
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, metavar="NAME")
    parser.add_argument("--accept", action="store_true", help="make the results the baseline")
    parser.add_argument("--latest", type=Path, default=compare.LATEST, metavar="DIR")
    parser.add_argument("--baseline", type=Path, default=compare.BASELINE, metavar="DIR")
    options = parser.parse_args(arguments)
    names = options.only or [n for n in BENCHMARKS if not (options.quick and n in HEAVY)]
    failed = run(names, options.latest, options.quick)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
        return 1
    latest = {n: r for n, r in compare.read(options.latest).items() if n in names}
    if options.accept:
        accept(latest, options.latest, options.baseline)
    baseline = compare.read(options.baseline)
    return compare.tell(compare.compare(latest, baseline, compare.TOLERANCE))


if __name__ == "__main__":
    sys.exit(main())
