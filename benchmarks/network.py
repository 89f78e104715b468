"""Simulated seconds a round over a mixed network: with and without compression, and a deadline.

    python -m benchmarks.network [--preset demo] [--network mixed] [--out FILE] [--quick]

Four private runs in this process: codec `fp32` (two rounds, for their seconds) and the preset's own
(all rounds), each waiting for everybody, and with a deadline that the two slowest institutions miss
(halfway between the slowest update of the others and theirs, on the first round's clock).
`tolerated_dropouts` is 2 in all four, so that the noise of those who stay is enough. The ratio is
the seconds of a round with compression over those without.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import Result, on_one_thread, parser, publish

DROPPED = 2


def measure(preset: str, network: str) -> Result:
    """Run the four and return what they took and gave."""
    rows: dict[str, dict[str, Any]] = {}
    plain = ["compression.codec=fp32", "training.rounds=2"]
    for name, codec in (("uncompressed", plain), ("compressed", [])):
        common = [f"network.preset={network}", f"privacy.tolerated_dropouts={DROPPED}", *codec]
        rows[f"{name}, sync"] = sync = _run(preset, common)
        deadline = _deadline(sync.pop("totals"))
        rule = ["network.aggregation.kind=deadline"]
        rule.append(f"network.aggregation.deadline_seconds={deadline}")
        rows[f"{name}, deadline"] = late = _run(preset, common + rule)
        late.pop("totals")
        late["deadline"] = deadline
    seconds = {name: row["seconds_per_round"] for name, row in rows.items()}
    return Result(
        benchmark="network",
        config={"preset": preset, "network": network},
        ratios={
            f"{kind}: compressed/uncompressed": [
                seconds[f"compressed, {kind}"] / seconds[f"uncompressed, {kind}"]
            ]
            for kind in ("sync", "deadline")
        },
        targets={
            "sync: compressed/uncompressed": 1.0,
            "deadline: compressed/uncompressed": 1.0,
        },
        details=rows,
    )


def _deadline(totals: dict[str, float]) -> float:
    """Return seconds that the slowest institutions miss and the others keep."""
    ordered = sorted(totals.values())
    if len(ordered) <= DROPPED:
        return ordered[-1]
    return round((ordered[-DROPPED - 1] + ordered[-DROPPED]) / 2, 4)


def _run(preset: str, overrides: Sequence[str]) -> dict[str, Any]:
    import fedfuse_ray

    experiment = fedfuse_ray.load_experiment(
        preset, ["execution.executor=serial", *overrides], paradigm="fedfuse"
    )
    with tempfile.TemporaryDirectory() as folder:
        summary = fedfuse_ray.run(experiment, Path(folder))
        rows = fedfuse_ray.load_result(Path(folder)).institutions.to_pylist()
    steps = ("download_seconds", "compute_seconds", "upload_seconds")
    first = [row for row in rows if row["round"] == 1]
    found = {
        "seconds_per_round": summary.time.simulated_seconds / summary.rounds,
        "rounds": summary.rounds,
        "accuracy": summary.accuracy["overall"],
        "epsilon": summary.privacy.epsilon,
        "uplink_bytes_per_round": summary.communication.uplink_bytes_per_round,
        "late": sorted({row["institution"] for row in rows if row["status"] == "late"}),
        "lates": sum(row["status"] == "late" for row in rows),
        "totals": {row["institution"]: sum(row[step] for step in steps) for row in first},
    }
    print(f"  {' '.join(overrides)}: {found['seconds_per_round']:.3f} s a round", flush=True)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--preset", default="demo")
    made.add_argument("--network", default="mixed")
    options = made.parse_args(arguments)
    if options.quick:
        options.preset = "tiny"
    on_one_thread()
    publish(measure(options.preset, options.network), options.out)


if __name__ == "__main__":
    main()
