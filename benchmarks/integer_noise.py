"""Noise of secure sums: accuracy and bytes of each mechanism, at the same epsilon.

    python -m benchmarks.integer_noise [--preset demo] [--seeds 0 1 2] [--out FILE] [--quick]

`gaussian` adds noise and rounds afterwards, with the proof of docs/proofs.md. The others round
first, on a grid that raises the sensitivity, and so epsilon, by 1%. Each setting is a whole run in
this process. The benchmark's ratios are the payload bytes of `gaussian` over those of the others.
`rounded at random` is no run: it says how many bits the discrete Gaussian would need a coordinate,
at the same 1%, if sums were rounded at random and again until their norm is small enough (Kairouz,
Liu and Steinke, 2021, arXiv 2102.06387: conditional randomized rounding).
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.results import Result, on_one_thread, parser, publish

MECHANISMS = ("gaussian", "skellam", "discrete-gaussian")
_TAIL = 4.0
"""Standard deviations that a modulus holds; the adaptive policy comes to about as many."""


def measure(preset: str, seeds: Sequence[int], mechanisms: Sequence[str]) -> Result:
    """Run every mechanism with every seed."""
    found = {name: [_run(preset, seed, name) for seed in seeds] for name in mechanisms}
    for name, runs in found.items():
        accuracies = " ".join(f"{run['accuracy']:.3f}" for run in runs)
        payload = sum(run["payload"] for run in runs) / len(runs)
        print(f"  {name:<18} {accuracies}  {payload / 1e3:8.2f} kB a round", flush=True)
    ratios = {
        f"gaussian/{name} payload": [
            ours["payload"] / run["payload"]
            for ours, run in zip(found["gaussian"], found[name], strict=True)
        ]
        for name in mechanisms
        if name != "gaussian"
    }
    bits = randomly_rounded_bits(preset)
    print(f"  rounded at random: {bits:.1f} bits a coordinate")
    return Result(
        benchmark="integer_noise",
        config={"preset": preset, "seeds": list(seeds)},
        ratios=ratios,
        targets=dict.fromkeys(ratios, 1.0),
        details={"runs": found, "rounded at random, bits": bits},
    )


def _run(preset: str, seed: int, mechanism: str) -> Mapping[str, float]:
    import fedfuse_ray

    overrides = ["execution.executor=serial", f"seed={seed}", f"privacy.mechanism={mechanism}"]
    experiment = fedfuse_ray.load_experiment(preset, overrides, paradigm="fedfuse")
    with tempfile.TemporaryDirectory() as folder:
        summary = fedfuse_ray.run(experiment, Path(folder))
    return {
        "accuracy": summary.accuracy["overall"],
        "payload": summary.communication.payload_bytes_per_round,
        "uplink": summary.communication.uplink_bytes_per_round,
        "epsilon": summary.privacy.epsilon or 0.0,
        "noise_multiplier": summary.privacy.noise_multiplier or 0.0,
    }


def randomly_rounded_bits(preset: str) -> float:
    """Return the bits of the discrete Gaussian's widest block after random rounding.

    A grid of g raises the squared sensitivity C^2 by g^2 d / 4 at least; 1% of C is 2% of C^2.
    """
    import fedfuse_ray
    from fedfuse_ray.data.dataset import outline
    from fedfuse_ray.federation.plan.plan import make_plan

    experiment = fedfuse_ray.load_experiment(preset, paradigm="fedfuse")
    names = experiment.institutions
    index = outline(
        experiment.data,
        names,
        seed=experiment.seed,
        replicas=experiment.replicas,
    )
    plan = make_plan(experiment, index)
    terms, clip = plan.terms, experiment.privacy.clip_norm
    dimension = max(sum(own.values()) for own in terms.coordinates.values())
    grid = clip * math.sqrt(4.0 * 0.02 / dimension)
    owners = max(terms.owners, key=lambda block: len(terms.owners[block]))
    excess = math.sqrt(len(terms.owners[owners]) / terms.shares(owners))
    return math.log2(2.0 * _TAIL * terms.common_sigma(1) * excess * clip / grid)


def main(arguments: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--preset", default="demo")
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    made.add_argument("--mechanisms", nargs="+", default=list(MECHANISMS), choices=MECHANISMS)
    options = made.parse_args(arguments)
    if options.quick:
        options.preset, options.seeds = "tiny", [0]
    on_one_thread()
    mechanisms = dict.fromkeys(("gaussian", *options.mechanisms))
    publish(measure(options.preset, options.seeds, list(mechanisms)), options.out)


if __name__ == "__main__":
    main()
