"""Seconds of a round of secure aggregation by stage: 15 institutions with 1M parameters each.

    OMP_NUM_THREADS=1 python benchmarks/secure_aggregation.py --out secure_aggregation.json

All institutions and the server run one after the other in this process, so the total is the work
of the whole federation. Widths are interleaved, and medians over the repeats are reported.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import cryptography
import numpy as np

from fedfuse_ray import rng
from fedfuse_ray.files import write_json
from fedfuse_ray.privacy.secure_aggregation import (
    BlockTerms,
    Identity,
    RoundReport,
    RoundTerms,
    Stage,
    minimum_threshold,
    run_round,
    simulation_identities,
    word_dtype,
)

# A model's parameters in blocks: two encoders, the fusion, and a head.
_FRACTIONS = {"encoder/ct": 0.4, "encoder/mri": 0.4, "fusion": 0.15, "head/medical": 0.05}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write the JSON."""
    options = _parse(arguments)
    identities = simulation_identities(
        0, [f"institution-{index:02d}" for index in range(options.institutions)]
    )
    runs: dict[str, list[RoundReport]] = defaultdict(list)
    for repeat in range(options.repeats):
        for bits in options.bits:
            for dropped in options.dropouts:
                report = _measure(identities, options.parameters, bits, dropped, repeat)
                runs[f"{bits}-bit, {dropped} dropouts"].append(report)
    result = {
        "config": vars(options) | {"out": str(options.out)},
        "commit": _commit(),
        "hardware": {"cpu": _cpu(), "python": platform.python_version()},
        "versions": {"cryptography": cryptography.__version__, "numpy": np.__version__},
        "results": {name: _summary(reports) for name, reports in runs.items()},
    }
    print(json.dumps(result["results"], indent=2))
    if options.out:
        write_json(options.out, result)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--institutions", type=int, default=15)
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 12, 16, 32])
    parser.add_argument("--dropouts", type=int, nargs="+", default=[0, 4])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    return parser.parse_args(arguments)


def _measure(
    identities: dict[str, Identity], parameters: int, bits: int, dropped: int, repeat: int
) -> RoundReport:
    """Run a round in which the last `dropped` institutions are lost before they upload."""
    names = tuple(identities)
    blocks = {
        name: BlockTerms(size=int(fraction * parameters), owners=names)
        for name, fraction in _FRACTIONS.items()
    }
    terms = RoundTerms(
        session="benchmark",
        round=repeat,
        threshold=minimum_threshold(len(names)),
        modulus_bits=bits,
        identities={name: identity.public for name, identity in identities.items()},
        blocks=blocks,
    )
    generator = rng.generator(repeat, "benchmark", bits)
    inputs = {
        name: {
            block: generator.integers(0, 1 << bits, item.size, dtype=np.uint64).astype(
                word_dtype(bits)
            )
            for block, item in blocks.items()
        }
        for name in names
    }
    lost = names[len(names) - dropped :]
    report = run_round(terms, identities, inputs, dropouts={Stage.MASKED_INPUT: lost})
    for block, total in report.aggregate.sums.items():
        exact = sum(inputs[name][block].astype(np.uint64) for name in names if name not in lost)
        if not np.array_equal(exact % (1 << bits), total):
            raise SystemExit(f"the sum of {block} is wrong: nothing measured here counts")
    return report


def _summary(reports: Sequence[RoundReport]) -> dict[str, object]:
    """Return medians by stage and side, and the median and range of the totals."""
    totals = [sum(report.seconds.values()) for report in reports]
    return {
        "seconds_by_stage": {
            stage: round(statistics.median(report.seconds[stage] for report in reports), 5)
            for stage in reports[0].seconds
        },
        "seconds_total": round(statistics.median(totals), 4),
        "seconds_total_range": [round(min(totals), 4), round(max(totals), 4)],
        "uplink_bytes_per_institution": max(reports[0].uplink_bytes.values()),
        "downlink_bytes_per_institution": max(reports[0].downlink_bytes.values()),
    }


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
