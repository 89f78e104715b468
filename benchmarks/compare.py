"""Compare results with a baseline, by ratios only, and say what got worse.

    python -m benchmarks.compare [--latest DIR] [--baseline DIR] [--tolerance 0.15]

Exit status 1 when a ratio is worse than the baseline's by more than the tolerance and more than
both spreads explain, when it is missing, or when its target is missed. Results that
were taken while others used the machine are not judged.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

RESULTS = Path(__file__).parent / "results"
LATEST, BASELINE = RESULTS / "latest", RESULTS / "baseline"
TOLERANCE = 0.15

Verdict = Literal[
    "same", "better", "worse", "missing", "over target", "other settings", "too noisy", "new"
]
BAD: tuple[Verdict, ...] = ("worse", "missing", "over target")


@dataclass(frozen=True)
class Finding:
    """How one ratio stands against the baseline."""

    benchmark: str
    ratio: str
    verdict: Verdict
    latest: float | None = None
    baseline: float | None = None

    def __str__(self) -> str:
        """Return the line that is printed."""
        shown = [f"{x:.3f}" if x is not None else "-" for x in (self.baseline, self.latest)]
        name = f"{self.benchmark}: {self.ratio}"
        return f"{name:<56}{shown[0]:>9} -> {shown[1]:>8}  {self.verdict}"


def compare(
    latest: Mapping[str, Mapping[str, Any]],
    baseline: Mapping[str, Mapping[str, Any]],
    tolerance: float,
) -> list[Finding]:
    """Compare every ratio of every benchmark that was run.

    Args:
        latest: Results by benchmark.
        baseline: The same, from the past.
        tolerance: The relative change that counts as none.
    """
    return [
        finding
        for name, result in sorted(latest.items())
        for finding in _of_benchmark(name, result, baseline.get(name), tolerance)
    ]


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the results in a folder, by benchmark.

    Raises:
        ValueError: A file is not a result.
    """
    results = {}
    for path in sorted(folder.glob("*.json")):
        tree = json.loads(path.read_text())
        if not isinstance(tree, dict) or not {"benchmark", "config", "ratios"} <= tree.keys():
            raise ValueError(f"{path} is not a benchmark's result")
        results[str(tree["benchmark"])] = tree
    return results


def tell(findings: Sequence[Finding]) -> int:
    """Print the findings; returns the exit status."""
    for finding in findings:
        print(finding)
    bad = [finding for finding in findings if finding.verdict in BAD]
    print(f"{len(bad)} of {len(findings)} ratios need a look" if bad else "no regression")
    return 1 if bad else 0


def _of_benchmark(
    name: str, latest: Mapping[str, Any], baseline: Mapping[str, Any] | None, tolerance: float
) -> Iterator[Finding]:
    if is_noisy(latest):
        for ratio, found in latest["ratios"].items():
            yield Finding(name, ratio, "too noisy", found["median"])
        return
    if baseline is not None and _settings(baseline) != _settings(latest):
        for ratio, found in latest["ratios"].items():
            yield Finding(name, ratio, "other settings", found["median"])
        return
    for ratio, found in latest["ratios"].items():
        past = baseline["ratios"].get(ratio) if baseline is not None else None
        target = latest.get("targets", {}).get(ratio)
        if target is not None and found["median"] > target:
            verdict: Verdict = "over target"
        else:
            verdict = _judge(found, past, tolerance) if past is not None else "new"
        yield Finding(name, ratio, verdict, found["median"], past["median"] if past else None)
    for ratio, past in baseline["ratios"].items() if baseline is not None else ():
        if ratio not in latest["ratios"]:
            yield Finding(name, ratio, "missing", None, past["median"])


def is_noisy(result: Mapping[str, Any]) -> bool:
    """Return whether the benchmark itself says that others used the machine meanwhile."""
    return result.get("details", {}).get("quiet") is False


def _settings(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides a ratio; how often it was measured does not."""
    return {key: value for key, value in result["config"].items() if key != "repeats"}


def _judge(latest: Mapping[str, float], past: Mapping[str, float], tolerance: float) -> Verdict:
    """Judge by the medians, unless the middle halves of the repeats still overlap."""
    change = latest["median"] / past["median"] - 1
    if change > tolerance and latest["low"] > past["high"]:
        return "worse"
    if change < -tolerance and latest["high"] < past["low"]:
        return "better"
    return "same"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--latest", type=Path, default=LATEST, metavar="DIR")
    parser.add_argument("--baseline", type=Path, default=BASELINE, metavar="DIR")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE)
    options = parser.parse_args(arguments)
    return tell(compare(read(options.latest), read(options.baseline), options.tolerance))


if __name__ == "__main__":
    sys.exit(main())
