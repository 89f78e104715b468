"""Noise of secure sums: bytes, and accuracy, of each mechanism at the same epsilon.

    python -m benchmarks.integer_noise [--preset demo] [--seeds 0 1 2] [--out FILE] [--quick]

`gaussian` adds noise and rounds afterwards, with the proof of docs/proofs.md. The others round
first, on a grid that raises the sensitivity, and so epsilon, by 1%. Payloads are of sums of noise
alone, encoded as in a run of the preset's rounds, with the adaptive policy: gradients are small
beside it. With seeds each setting is a whole run, too. The benchmark's ratios are the payload bytes
of `gaussian` over those of the others. `rounded at random` says how many bits a discrete Gaussian
would need a coordinate, at the same 1%, if sums were rounded at random until their norm is small
enough (Kairouz, Liu and Steinke, 2021, arXiv 2102.06387: conditional randomized rounding).
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.results import Result, on_one_thread, parser, publish

if TYPE_CHECKING:
    from fedfuse_ray.federation.plan.plan import Plan

MECHANISMS = ("gaussian", "skellam", "discrete-gaussian")
_TAIL = 4.0
"""Standard deviations that a modulus holds; the adaptive policy comes to about as many."""


def measure(preset: str, seeds: Sequence[int]) -> Result:
    """Encode noise by every mechanism, and run every seed."""
    plans = {name: planned(preset, name) for name in MECHANISMS}
    payloads = {name: noise_payload(plan) for name, plan in plans.items()}
    coordinates = sum(sum(own.values()) for own in plans["gaussian"].terms.coordinates.values())
    runs = {name: [accuracy(preset, seed, name) for seed in seeds] for name in MECHANISMS}
    for name, payload in payloads.items():
        bits = 8.0 * payload / coordinates
        shown = " ".join(f"{value:.3f}" for value in runs[name])
        print(f"  {name:<18} {payload / 1e3:8.2f} kB a round, {bits:.1f} bits  {shown}", flush=True)
    bits = randomly_rounded_bits(plans["discrete-gaussian"])
    print(f"  rounded at random  {bits:.1f} bits")
    ratios = {
        f"gaussian/{name} payload": [payloads["gaussian"] / payload]
        for name, payload in payloads.items()
        if name != "gaussian"
    }
    return Result(
        benchmark="integer_noise",
        config={"preset": preset, "seeds": list(seeds)},
        ratios=ratios,
        targets=dict.fromkeys(ratios, 1.0),
        details={"payload": payloads, "accuracy": runs, "rounded at random, bits": bits},
    )


def planned(preset: str, mechanism: str) -> Plan:
    """Return a preset's plan under a mechanism."""
    import fedfuse_ray
    from fedfuse_ray.data.dataset import outline
    from fedfuse_ray.federation.plan.plan import make_plan

    setting = f"privacy.mechanism={mechanism}"
    made = fedfuse_ray.load_experiment(preset, [setting], paradigm="fedfuse")
    index = outline(made.data, made.institutions, seed=made.seed, replicas=made.replicas)
    return make_plan(made, index)


def noise_payload(plan: Plan) -> float:
    """Return the payload bytes of a round in which all sums are zero, mean over the rounds."""
    from fedfuse_ray.federation.messages.released import Released
    from fedfuse_ray.federation.modes.grid import grid_of
    from fedfuse_ray.federation.modes.integers import noisy_words
    from fedfuse_ray.federation.server.adaptation import Adaptation
    from fedfuse_ray.packing import packed_bytes
    from fedfuse_ray.privacy.secure_aggregation import from_modular

    terms, experiment = plan.terms, plan.experiment
    senders = {block: len(owners) for block, owners in terms.owners.items()}
    policy = Adaptation(experiment.compression, senders)
    released, payload = Released(), 0
    for number in range(1, experiment.training.rounds + 1):
        grid = grid_of(plan, number, released)
        totals = {block: np.zeros(1, np.int64) for block in terms.owners}
        for name, own in terms.coordinates.items():
            zeros = {block: np.zeros(size, np.float32) for block, size in own.items()}
            for block, words in noisy_words(zeros, name, grid, plan.randomness).items():
                totals[block] = totals[block] + words.astype(np.int64)
                payload += packed_bytes(words.size, grid.bits(block))
        bits = {block: grid.bits(block) for block in totals}
        sums = {b: from_modular(_within(v, bits[b]), bits[b]) for b, v in totals.items()}
        if plan.coding.adapts(secure=True):
            released = Released(settings=policy.after_secure_sum(sums, bits))
    return payload / experiment.training.rounds


def _within(total: np.ndarray, bits: int) -> np.ndarray:
    return (total & ((1 << bits) - 1)).astype(np.uint64)


def accuracy(preset: str, seed: int, mechanism: str) -> float:
    """Return the overall accuracy of a whole run."""
    import fedfuse_ray

    settings = ["execution.executor=serial", f"seed={seed}", f"privacy.mechanism={mechanism}"]
    experiment = fedfuse_ray.load_experiment(preset, settings, paradigm="fedfuse")
    with tempfile.TemporaryDirectory() as folder:
        return fedfuse_ray.run(experiment, Path(folder)).accuracy["overall"]


def randomly_rounded_bits(plan: Plan) -> float:
    """Return the bits of the block with most owners after random rounding.

    A grid of g raises the squared sensitivity C^2 by g^2 d / 4 at least; 1% of C is 2% of C^2.
    """
    terms, clip = plan.terms, plan.experiment.privacy.clip_norm
    dimension = max(sum(own.values()) for own in terms.coordinates.values())
    grid = clip * math.sqrt(4.0 * 0.02 / dimension)
    block = max(terms.owners, key=lambda name: len(terms.owners[name]))
    spread = math.sqrt(len(terms.owners[block]) / terms.shares(block))
    return math.log2(2.0 * _TAIL * terms.common_sigma(1) * spread * clip / grid)


def main(arguments: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--preset", default="demo")
    made.add_argument("--seeds", type=int, nargs="*", default=[])
    options = made.parse_args(arguments)
    if options.quick:
        options.preset, options.seeds = "tiny", []
    on_one_thread()
    publish(measure(options.preset, options.seeds), options.out)


if __name__ == "__main__":
    main()
