"""Seconds of a round of secure aggregation by stage, and bytes beside the masked words.

    python -m benchmarks.secure_aggregation [--out FILE] [--quick]

15 institutions with 1M parameters each, unless told otherwise. All of them and the server run one
after the other in this process, so the total is the work of the whole federation. Widths are
interleaved, and medians over the repeats are reported. The protocol's bytes are those of a round of
its own, with the demo's threshold and number of blocks; they do not depend on the parameters.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.results import Result, on_one_thread, parser, publish, yardstick
from fedfuse_ray import rng
from fedfuse_ray.packing import packed_bytes
from fedfuse_ray.privacy.secure_aggregation import (
    BlockTerms,
    Identity,
    RoundReport,
    RoundTerms,
    Stage,
    minimum_threshold,
    run_round,
    word_dtype,
)

# A model's parameters in blocks: two encoders, the fusion, and a head.
_FRACTIONS = {"encoder/ct": 0.4, "encoder/mri": 0.4, "fusion": 0.15, "head/medical": 0.05}
# What the protocol's bytes are counted with: the demo's fraction that must stay, and its blocks.
_THRESHOLD = 2 / 3
_BLOCKS = 5
_BLOCK_SIZE, _BITS = 128, 12


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write the JSON."""
    options = _parse(arguments)
    on_one_thread()
    publish(measure(options), options.out)


def measure(options: argparse.Namespace) -> Result:
    """Run every width and number of dropouts in turn; ratios are to the yardstick."""
    names = [f"institution-{index:02d}" for index in range(options.institutions)]
    identities = {
        name: Identity.generate(rng.generator(0, "identity", name).bytes) for name in names
    }
    runs: dict[str, list[RoundReport]] = defaultdict(list)
    ratios: dict[str, list[float]] = defaultdict(list)
    for repeat in range(options.repeats):
        for bits in options.bits:
            for dropped in options.dropouts:
                name = f"{bits}-bit, {dropped} dropouts"
                stick = yardstick()
                report, used = _measure(identities, options.parameters, bits, dropped, repeat)
                runs[name].append(report)
                ratios[f"{name}/yardstick"].append(used / stick)
    kept = ("institutions", "parameters", "bits", "dropouts", "repeats")
    return Result(
        benchmark="secure_aggregation",
        config={name: getattr(options, name) for name in kept},
        ratios=ratios,
        seconds={name: [sum(r.seconds.values()) for r in found] for name, found in runs.items()},
        details={name: _summary(found) for name, found in runs.items()}
        | {"protocol": _protocol(identities)},
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--institutions", type=int, default=15)
    made.add_argument("--parameters", type=int, default=1_000_000)
    made.add_argument("--bits", type=int, nargs="+", default=[8, 12, 16, 32])
    made.add_argument("--dropouts", type=int, nargs="+", default=[0, 4])
    made.add_argument("--repeats", type=int, default=5)
    options = made.parse_args(arguments)
    if options.quick:
        options.institutions, options.parameters, options.repeats = 4, 1000, 1
        options.bits, options.dropouts = [16], [1]
    return options


def _measure(
    identities: dict[str, Identity], parameters: int, bits: int, dropped: int, repeat: int
) -> tuple[RoundReport, float]:
    """Run a round in which the last `dropped` institutions are lost before they upload.

    Returns the report, and the processor time of the round.
    """
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
    began = time.process_time()
    report = run_round(terms, identities, inputs, dropouts={Stage.MASKED_INPUT: lost})
    used = time.process_time() - began
    for block, total in report.unmasked.sums.items():
        exact = sum(inputs[name][block].astype(np.uint64) for name in names if name not in lost)
        if not np.array_equal(exact % (1 << bits), total):
            raise SystemExit(f"the sum of {block} is wrong: nothing measured here counts")
    return report, used


def _summary(reports: Sequence[RoundReport]) -> dict[str, object]:
    """Return medians by stage, and what one institution sends and receives."""
    return {
        "seconds_by_stage": {
            stage: round(statistics.median(report.seconds[stage] for report in reports), 5)
            for stage in reports[0].seconds
        },
        "uplink_bytes_per_institution": max(reports[0].uplink_bytes.values()),
        "downlink_bytes_per_institution": max(reports[0].downlink_bytes.values()),
    }


def _protocol(identities: Mapping[str, Identity]) -> dict[str, object]:
    """Return the bytes of one institution and round beside its masked words, by stage."""
    names = tuple(identities)
    terms = RoundTerms(
        session="protocol",
        round=0,
        threshold=max(math.ceil(_THRESHOLD * len(names)), minimum_threshold(len(names))),
        modulus_bits=_BITS,
        identities={name: identity.public for name, identity in identities.items()},
        blocks={f"block/{index}": BlockTerms(_BLOCK_SIZE, names) for index in range(_BLOCKS)},
    )
    words = np.zeros(_BLOCK_SIZE, dtype=word_dtype(_BITS))
    inputs = {name: dict.fromkeys(terms.blocks, words) for name in names}
    report = run_round(terms, identities, inputs)
    masked = _BLOCKS * packed_bytes(_BLOCK_SIZE, _BITS)
    uplink = {stage: max(sent.values()) for stage, sent in report.uplink_by_stage.items()}
    downlink = {stage: max(got.values()) for stage, got in report.downlink_by_stage.items()}
    uplink[Stage.MASKED_INPUT.value] -= masked
    return {
        "institutions": len(names),
        "threshold": terms.threshold,
        "blocks_per_institution": _BLOCKS,
        "masked_words_bytes_left_out": masked,
        "uplink_bytes_by_stage": uplink,
        "downlink_bytes_by_stage": downlink,
        "uplink_bytes": sum(uplink.values()),
        "downlink_bytes": sum(downlink.values()),
    }


if __name__ == "__main__":
    main()
