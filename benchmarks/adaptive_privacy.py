"""Accuracy at the same epsilon: constant noise, geometric schedules fixed in advance, adaptive.

    python -m benchmarks.adaptive_privacy [--preset demo] [--epsilons 1] [--out FILE] [--quick]

Each setting is a whole private run in this process. The ratio of a geometric schedule, last round's
noise over the first's, is chosen on the first seed; the other seeds see the best of them only. The
benchmark's ratio is the error of adaptive over that of constant, one for each seed.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import Result, on_one_thread, parser, publish

GEOMETRIC = (0.5, 2.0, 4.0)


@dataclass(frozen=True)
class Federation:
    """What is run: a preset at an epsilon, with what else is set."""

    preset: str
    epsilon: float

    def accuracy(self, seed: int, schedule: object) -> float:
        """Return the overall accuracy of one run, whose epsilon must be the one asked for."""
        import fedfuse_ray

        overrides = [
            "execution.executor=serial",
            f"seed={seed}",
            f"privacy.target_epsilon={self.epsilon}",
            f"privacy.noise_schedule={schedule}",
        ]
        experiment = fedfuse_ray.load_experiment(self.preset, overrides, paradigm="fedfuse")
        with tempfile.TemporaryDirectory() as folder:
            summary = fedfuse_ray.run(experiment, Path(folder))
        spent = summary.privacy.epsilon or 0.0
        if not 0.99 * self.epsilon < spent <= self.epsilon:
            raise SystemExit(f"{schedule}: epsilon {spent}, not {self.epsilon}")
        return summary.accuracy["overall"]

    @property
    def rounds(self) -> int:
        """Rounds of the preset."""
        import fedfuse_ray

        loaded = fedfuse_ray.load_experiment(self.preset, paradigm="fedfuse")
        return loaded.training.rounds


def geometric(rounds: int, ratio: float) -> list[float]:
    """Return factors from 1 to `ratio`; calibration gives every schedule the same epsilon."""
    return [round(ratio ** (t / max(1, rounds - 1)), 6) for t in range(rounds)]


def compare(federation: Federation, seeds: Sequence[int], ratios: Sequence[float]) -> Any:
    """Return the accuracies by schedule, one for each seed."""
    schedules = {f"geometric {r:g}": geometric(federation.rounds, r) for r in ratios}
    tried = {n: federation.accuracy(seeds[0], s) for n, s in schedules.items()}
    best = max(tried, key=lambda name: tried[name])
    chosen: Mapping[str, object] = {
        "constant": "constant",
        best: schedules[best],
        "adaptive": "adaptive",
    }
    found = {name: [value] for name, value in tried.items()}
    for name, schedule in chosen.items():
        missing = seeds[len(found.get(name, ())) :]
        measured = [federation.accuracy(seed, schedule) for seed in missing]
        found[name] = found.get(name, []) + measured
    for name, values in found.items():
        shown = " ".join(f"{value:.4f}" for value in values)
        mean = statistics.fmean(values)
        print(f"  epsilon {federation.epsilon:g}  {name:<14} {mean:.4f}  ({shown})", flush=True)
    return found


def measure(
    preset: str, epsilons: Sequence[float], seeds: Sequence[int], ratios: Sequence[float]
) -> Result:
    """Compare the schedules at every epsilon."""
    found = {f"epsilon {e:g}": compare(Federation(preset, e), seeds, ratios) for e in epsilons}
    errors = {
        f"{name}: adaptive/constant error": [
            (1.0 - adaptive) / (1.0 - constant)
            for adaptive, constant in zip(each["adaptive"], each["constant"], strict=True)
        ]
        for name, each in found.items()
    }
    return Result(
        benchmark="adaptive_privacy",
        config={"preset": preset, "epsilons": list(epsilons), "seeds": list(seeds)},
        ratios=errors,
        targets=dict.fromkeys(errors, 1.0),
        details={"accuracy": found},
    )


def main(arguments: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--preset", default="demo")
    made.add_argument("--epsilons", type=float, nargs="+", default=[1.0])
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = made.parse_args(arguments)
    ratios = GEOMETRIC
    if options.quick:
        options.preset, options.seeds, ratios = "tiny", [0], GEOMETRIC[:1]
    on_one_thread()
    publish(measure(options.preset, options.epsilons, options.seeds, ratios), options.out)


if __name__ == "__main__":
    main()
