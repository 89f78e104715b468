"""Bytes against accuracy: every fixed setting, and the adaptive policy, on one federation each.

    python -m benchmarks.compression [--preset demo] [--paradigm fedfuse] [--out FILE] [--quick]

Each setting is a whole run in this process, with the same seeds. Bytes are the payloads of the
updates; what headers and secure aggregation add is the same for all of them and stands beside. A
setting is on the Pareto front where no other one has both fewer bytes and at least its accuracy;
`on the front` says so of the adaptive policy, whose distance to the front is the benchmark's ratio:
the bytes of the cheapest setting that is at least as accurate over its own, at most 1 on the front.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.results import Result, on_one_thread, parser, publish

FIXED: dict[str, tuple[str, ...]] = {
    "fedfuse": (
        "codec=fp32",
        *(f"codec=modint bits={bits}" for bits in (3, 4, 5, 6, 7, 8, 12)),
    ),
    "fedfuse_nonprivate": (
        "codec=fp32",
        "codec=fp16",
        *(f"codec=modint bits={bits}" for bits in (3, 4, 6, 8)),
        "codec=rot1bit",
        *(f"codec=topk fraction={fraction}" for fraction in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)),
        *(f"codec=powersgd rank={rank}" for rank in (1, 4)),
    ),
}
ADAPTIVE: dict[str, tuple[str, ...]] = {
    "fedfuse": tuple(f"codec=modint policy.error_target={e}" for e in (0.1, 0.001)),
    "fedfuse_nonprivate": tuple(
        f"codec=topk policy.kind=adaptive policy.error_target={e}" for e in (0.5, 0.3)
    ),
}


@dataclass(frozen=True)
class Point:
    """What one setting cost and gave, mean over the seeds.

    Attributes:
        setting: Its name.
        payload_bytes: Of all updates of the run.
        uplink_bytes: With headers and protocol.
        accuracy: Overall.
        seconds: Wall time of a run.
    """

    setting: str
    payload_bytes: float
    uplink_bytes: float
    accuracy: float
    seconds: float


def measure(preset: str, paradigm: str, seeds: Sequence[int], settings: Sequence[str]) -> Result:
    """Run every setting and return the points, and where the adaptive ones stand among them."""
    adaptive = ADAPTIVE[paradigm]
    points = [_point(preset, paradigm, seeds, setting) for setting in settings]
    ratios, tables = {}, []
    for point in points:
        tables.append(vars(point) | {"on the front": distance(point, points) <= 1.0})
        if point.setting in adaptive:
            fixed = [p for p in points if p.setting not in adaptive]
            ratios[f"{point.setting}/front"] = [distance(point, [point, *fixed])]
    return Result(
        benchmark="compression",
        config={"preset": preset, "paradigm": paradigm, "seeds": list(seeds)},
        ratios=ratios,
        seconds={"run": [p.seconds for p in points]},
        targets=dict.fromkeys(ratios, 1.0),
        details={"points": tables},
    )


def distance(point: Point, points: Sequence[Point]) -> float:
    """Return a point's bytes over the fewest bytes that reach its accuracy; 1 on the front."""
    good = [p.payload_bytes for p in points if p.accuracy >= point.accuracy]
    return point.payload_bytes / min(good)


def _point(preset: str, paradigm: str, seeds: Sequence[int], setting: str) -> Point:
    found = [_run(preset, paradigm, seed, setting) for seed in seeds]
    mean: Mapping[str, float] = {
        name: statistics.fmean(each[name] for each in found) for name in found[0]
    }
    print(f"  {setting:<50} {mean['payload_bytes']:>12,.0f} B  {mean['accuracy']:.4f}", flush=True)
    return Point(setting=setting, **mean)


def _run(preset: str, paradigm: str, seed: int, setting: str) -> dict[str, float]:
    import fedfuse_ray

    overrides = ["execution.executor=serial", f"seed={seed}"]
    overrides += [f"compression.{each}" for each in setting.split()]
    experiment = fedfuse_ray.load_experiment(preset, overrides, paradigm=paradigm)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        summary = fedfuse_ray.run(experiment, Path(folder))
        seconds = time.perf_counter() - began
    sent = summary.communication
    return {
        "payload_bytes": sent.payload_bytes_per_round * summary.rounds,
        "uplink_bytes": sent.uplink_bytes_total,
        "accuracy": summary.accuracy["overall"],
        "seconds": seconds,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--preset", default="demo")
    made.add_argument("--paradigm", default="fedfuse", choices=sorted(FIXED))
    made.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = made.parse_args(arguments)
    settings = (*FIXED[options.paradigm], *ADAPTIVE[options.paradigm])
    if options.quick:
        options.preset, settings = "tiny", (settings[0], settings[1], settings[-1])
    on_one_thread()
    publish(measure(options.preset, options.paradigm, options.seeds, settings), options.out)


if __name__ == "__main__":
    main()
