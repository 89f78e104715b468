"""What noise that is correlated over rounds could gain under full participation: figures.

    python -m benchmarks.correlated_noise [--preset demo] [--rounds 10 40 200] [--out FILE]

First the errors of `benchmarks.factorisations`, over that of constant independent noise at equal
privacy: for the model that the preset scores, for its last model, and for all of its models. Then
trainings of the preset with such noise on the sums, at equal epsilon, with paired draws. The
benchmark's ratios are of errors; accuracies are in the details.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from benchmarks.factorisations import (
    Matrix,
    best_band,
    error,
    filters,
    independent,
    iterates,
    least_error,
    scored,
    square_root,
    toeplitz,
)
from benchmarks.results import Result, on_one_thread, parser, publish
from fedfuse_ray import load_experiment
from fedfuse_ray.blocks import Blocks
from fedfuse_ray.config.settings.training import FedAvgConfig
from fedfuse_ray.data.dataset import prepare
from fedfuse_ray.federation.institution.institution import Institution, NetCache, pin_threads
from fedfuse_ray.federation.messages.downlink import Received
from fedfuse_ray.federation.messages.released import Released
from fedfuse_ray.federation.plan import paradigms, public_encoders
from fedfuse_ray.federation.plan.plan import make_plan
from fedfuse_ray.federation.plan.transfer import first_weights
from fedfuse_ray.federation.rounds.loop import round_views
from fedfuse_ray.federation.rounds.scoring import round_scores
from fedfuse_ray.federation.strategies import STRATEGIES, Aggregate, Standing

BANDS = 4
EVERY = 10


def errors(a: Matrix) -> dict[str, float]:
    """Return errors of several C on A, over that of constant independent noise in full batches.

    Args:
        a: A [m, T].

    Returns:
        `least`: what no C can go below. `schedule`: the best independent noise. `4 bands`: the best
        band that a search finds. `root`: the square root of the prefix sums, banded or whole.
        `1/10, ...`: the same where each record contributes in every tenth round only.
    """
    rounds = a.shape[1]
    constant = error(a, np.eye(rounds))
    found = {
        "least": least_error(a),
        "schedule": error(a, independent(a)),
        f"{BANDS} bands": error(a, best_band(a, BANDS)),
        f"root, {BANDS} bands": error(a, toeplitz(square_root(BANDS), rounds)),
        "root": error(a, toeplitz(square_root(rounds), rounds)),
        f"1/{EVERY}, constant": error(a, np.eye(rounds), EVERY),
        f"1/{EVERY}, {EVERY} bands": error(a, best_band(a, EVERY, EVERY), EVERY),
    }
    return {name: value / constant for name, value in found.items()}


class Training:
    """The joint steps of a preset's private training, with noise of any correlation on the sums.

    Institutions, clipping and the strategy are the product's. The noise is drawn on the sum itself,
    in float32, and nothing is masked: a secure sum of shares has the same distribution.

    Args:
        preset: Whose paradigm `fedfuse` trains, from full batches.
        overrides: Other settings, as `--set` takes them.
    """

    def __init__(self, preset: str, overrides: Sequence[str]) -> None:

        pin_threads()
        settings = ["execution.executor=serial", "compression.codec=fp32", *overrides]
        loaded = load_experiment(preset, settings, paradigm="fedfuse")
        self.experiment = paradigms.resolve(loaded)
        given = self.experiment
        data = prepare(given.data, given.institutions, seed=given.seed, replicas=given.replicas)
        self._plan = make_plan(given, data.index, pooled=False)
        public_encoders.ensure(self._plan.spec)
        nets = NetCache(self._plan)
        self._institutions = [
            Institution(self._plan, one, data, nets) for one in self._plan.participants
        ]

    @cached_property
    def rounds(self) -> int:
        """T."""
        return self.experiment.training.rounds

    @cached_property
    def strategy(self) -> FedAvgConfig:
        """The server's step, whose part in the noise is linear."""
        config = self.experiment.strategy
        if not isinstance(config, FedAvgConfig):
            raise SystemExit(
                f"strategy.kind {config.kind!r}: its steps are not linear in the noise"
            )
        return config

    def model(self, filtered: Matrix, seed: int) -> Blocks:
        """Train, and return the model that is scored.

        Args:
            filtered: Independent draws to noise, [T, T], relative to constant noise of the preset's
                own multiplier: see `filters`.
            seed: Of the draws.
        """
        config = self.strategy
        strategy, weights = STRATEGIES[config.kind](config), first_weights(self._plan.spec)
        standing = Standing(weights=weights, state=strategy.init(weights))
        generator = np.random.default_rng(seed)
        draws = {
            name: generator.standard_normal((self.rounds, vector.size), dtype=np.float32)
            for name, vector in weights.items()
        }
        last = max(1, math.ceil(config.average_last * self.rounds))
        average = {name: np.zeros_like(vector) for name, vector in weights.items()}
        for number, row in enumerate(filtered.astype(np.float32), start=1):
            noise = {n: np.einsum("t,td->d", row, drawn) for n, drawn in draws.items()}
            standing = strategy.apply(standing, self._step(standing.weights, noise, number))
            if number > self.rounds - last:
                for name, vector in standing.weights.items():
                    average[name] += vector / np.float32(last)
        return average

    def accuracy(self, filtered: Matrix, seed: int) -> float:
        """Return the overall accuracy of one training; arguments as of `model`."""
        model, views = self.model(filtered, seed), round_views(self._plan)
        counts = [one.evaluate(model, views[one.participant.domain]) for one in self._institutions]
        return round_scores(self._plan, counts)["overall"]

    def _step(self, weights: Blocks, noise: Blocks, round: int) -> Aggregate:
        """Return the mean of all clipped gradients, plus a round's noise of multiplier 1."""
        terms, sums = self._plan.terms, {n: np.zeros_like(v) for n, v in weights.items()}
        for one in self._institutions:
            own = {block: weights[block] for block in self._plan.blocks_of(one.participant)}
            received = Received(own, {}, Released(), 0)
            draws = self._plan.randomness.given(received.digest)
            update = one.joint_step(round, received, draws).update
            for block, vector in update.weights.items():
                sums[block] += vector
        means: Blocks = {}
        for block, owners in self._plan.owners.items():
            # Shares that cover dropouts add up to more than is needed while nobody is missing.
            std = terms.common_sigma(1) * terms.config.clip_norm
            std *= math.sqrt(len(owners) / terms.shares(block))
            records = sum(self._plan.by_name[name].specimens for name in owners)
            means[block] = (sums[block] + np.float32(std) * noise[block]) / np.float32(records)
        ones = dict.fromkeys(means, 1.0)
        return Aggregate(mean=means, steps=ones, participation=ones)


def accuracies(training: Training, forms: Mapping[str, Matrix], draws: int) -> dict[str, float]:
    """Return the mean accuracy of each C over some draws of the noise, the same ones for all."""
    found = {}
    for name, c in forms.items():
        values = [training.accuracy(filters(c), seed) for seed in range(draws)]
        found[name] = statistics.fmean(values)
        print(f"  seed {training.experiment.seed}  {name:<28}{found[name]:.4f}", flush=True)
    return found


def forms_of(training: Training) -> dict[str, Matrix]:
    """Return the C that trainings are made with."""
    rounds, strategy = training.rounds, training.strategy
    momentum = strategy.server_momentum
    a = scored(rounds, momentum, strategy.average_last)
    return {
        "constant": np.eye(rounds),
        "best schedule, scored model": independent(a),
        "best schedule, all models": independent(iterates(rounds, momentum)),
        f"square root, {BANDS} bands": toeplitz(square_root(BANDS), rounds),
        "square root, all bands": toeplitz(square_root(rounds), rounds),
    }


def measure(
    preset: str, lengths: Sequence[int], seeds: Sequence[int], draws: int, overrides: Sequence[str]
) -> Result:
    """Compute the errors for every number of rounds, and train with every seed."""
    trainings = [Training(preset, [*overrides, f"seed={seed}"]) for seed in seeds]
    strategy = trainings[0].strategy
    momentum, fraction = strategy.server_momentum, strategy.average_last
    ratios: dict[str, list[float]] = {}
    for rounds in lengths:
        workloads = {
            "scored": scored(rounds, momentum, fraction),
            "last": scored(rounds, momentum, 0.0),
            "last, no momentum": scored(rounds, 0.0, 0.0),
            "all": iterates(rounds, momentum),
            "all, no momentum": iterates(rounds),
        }
        for what, a in workloads.items():
            ratios |= {f"{rounds} {what}: {n}": [v] for n, v in errors(a).items()}
    forms = forms_of(trainings[0])
    trained = [accuracies(training, forms, draws) for training in trainings]
    schedules = {
        name: [round(float(c[0, 0] / c[t, t]), 4) for t in range(len(c))]
        for name, c in forms.items()
        if "schedule" in name
    }
    return Result(
        benchmark="correlated_noise",
        config={
            "preset": preset,
            "rounds": list(lengths),
            "seeds": list(seeds),
            "draws": draws,
            "overrides": list(overrides),
        },
        ratios=ratios,
        details={
            "accuracy": {name: [round(each[name], 4) for each in trained] for name in forms},
            "privacy.noise_schedule": schedules,
        },
    )


def main(arguments: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--preset", default="demo")
    made.add_argument("--rounds", type=int, nargs="+", default=[10, 40, 200])
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    made.add_argument("--draws", type=int, default=2, help="of the noise, for each seed")
    made.add_argument("--set", nargs="+", default=[], metavar="A.B=C", help="other settings")
    options = made.parse_args(arguments)
    if options.quick:
        options.preset, options.rounds, options.seeds, options.draws = "tiny", [10], [0], 1
    on_one_thread()
    given = (options.preset, options.rounds, options.seeds, options.draws, options.set)
    publish(measure(*given), options.out)


if __name__ == "__main__":
    main()
