"""What the benchmarks share: settings of a run, its JSON, a yardstick for ratios, one thread.

Seconds are written down for people. Only ratios are compared with a baseline, and each has both its
sides measured in one run: seconds of another machine, or of a busy hour, say nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedfuse_ray.files import write_json

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_DIGITS = 6


@dataclass(frozen=True)
class Result:
    """What one benchmark found.

    Attributes:
        benchmark: Its name, which is also the name of its file.
        config: Its settings; results of other settings are not compared.
        seconds: Name to the repeats, for people.
        ratios: Name to the repeats, lower is better; these are compared.
        targets: Name of a ratio to the most that its median may be.
        details: Whatever else a reader wants to know.
    """

    benchmark: str
    config: Mapping[str, Any]
    ratios: Mapping[str, Sequence[float]]
    seconds: Mapping[str, Sequence[float]] = field(default_factory=dict)
    targets: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser that knows what every benchmark understands."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--out", type=Path, metavar="FILE", help="where the JSON goes")
    made.add_argument("--quick", action="store_true", help="smallest settings, in seconds")
    return made


def publish(result: Result, out: Path | None) -> dict[str, Any]:
    """Print what was found, write it to `out`, and return it as it is written.

    Raises:
        ValueError: A number is not finite.
    """
    from fedfuse_ray.report.provenance import environment

    where = environment()
    tree: dict[str, Any] = {
        "benchmark": result.benchmark,
        "config": dict(result.config),
        "commit": where["git"],
        "time": where["time"],
        "hardware": where["hardware"] | {"load_average": [round(x, 2) for x in os.getloadavg()]},
        "versions": where["versions"],
        "ratios": {name: summary(values) for name, values in result.ratios.items()},
        "targets": dict(result.targets),
        "seconds": {name: summary(values) for name, values in result.seconds.items()},
        "details": dict(result.details),
    }
    tree = json.loads(json.dumps(tree, allow_nan=False))
    if out is not None:
        write_json(out, tree)
    _print(result)
    return tree


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Return the median of the repeats, their quartiles as the spread, and how many there are."""
    ordered = sorted(values)
    if len(ordered) > 1:
        low, _, high = statistics.quantiles(ordered, n=4, method="inclusive")
    else:
        low = high = ordered[0]
    rounded = {"median": statistics.median(ordered), "low": low, "high": high, "least": ordered[0]}
    return {k: round(v, _DIGITS) for k, v in rounded.items()} | {"repeats": len(ordered)}


def yardstick() -> float:
    """Return the processor seconds that a fixed piece of numpy work takes here and now."""
    import numpy as np

    values = np.random.Generator(np.random.SFC64(0)).standard_normal((64, 4096))
    began = time.process_time()
    for _ in range(20):
        np.sort(np.exp(-np.abs(np.fft.rfft(values).real)), axis=1)
    return time.process_time() - began


def on_one_thread() -> None:
    """Start this script again with one thread, which numpy and torch read when they are loaded."""
    if any(os.environ.get(name) != "1" for name in _THREADS):
        os.execve(sys.executable, sys.orig_argv, os.environ | dict.fromkeys(_THREADS, "1"))


def _print(result: Result) -> None:
    print(f"{result.benchmark}  {json.dumps(dict(result.config))}")
    for kind, unit in ((result.seconds, " s"), (result.ratios, " x")):
        for name, values in kind.items():
            found = summary(values)
            target = f"   target {result.targets[name]:g}" if name in result.targets else ""
            if kind is result.seconds:
                target = ""
            print(
                f"  {name:<44}{found['median']:>10.4g}{unit}"
                f"   [{found['low']:.4g}, {found['high']:.4g}]{target}"
            )
    for name, value in result.details.items():
        print(f"  {name}: {json.dumps(value)}")
