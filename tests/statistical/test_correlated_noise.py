"""What the benchmark of correlated noise says of sensitivities and errors is so."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.correlated_noise import Training, errors
from benchmarks.factorisations import (
    best_band,
    error,
    filters,
    independent,
    iterates,
    least_error,
    scored,
    sensitivity,
    square_root,
    toeplitz,
)
from fedfuse_ray.config.settings.training import FedAvgConfig
from fedfuse_ray.federation.checkpoints import checkpoint
from fedfuse_ray.federation.strategies import STRATEGIES, Aggregate, Standing
from fedfuse_ray.runs.running import run

NEARLY = 1.0 + 1e-9


def farthest(c, dimensions, every=1, seed=0):
    """Search for the contributions of norm 1, every so many rounds, that move C X most.

    Row by row, each row is turned to where it adds most: no step makes |C X| smaller.
    """
    generator, gram, rounds = np.random.default_rng(seed), c.T @ c, len(c)
    most = 0.0
    for first, _ in itertools.product(range(every), range(10)):
        own = range(first, rounds, every)
        rows = np.zeros((rounds, dimensions))
        rows[first::every] = generator.standard_normal((len(own), dimensions))
        rows[first::every] /= np.linalg.norm(rows[first::every], axis=1, keepdims=True)
        for _, row in itertools.product(range(30), own):
            others = gram[row] @ rows - gram[row, row] * rows[row]
            if np.linalg.norm(others) > 0:
                rows[row] = others / np.linalg.norm(others)
        most = max(most, float(np.linalg.norm(c @ rows)))
    return most


def lower_triangular(generator, rounds, signed):
    c = np.tril(generator.uniform(-1.0 if signed else 0.0, 1.0, (rounds, rounds)))
    return c + np.diag(0.2 + generator.uniform(0.0, 1.0, rounds) - np.diag(c))


shapes = st.tuples(st.integers(2, 7), st.integers(1, 5), st.integers(0, 10_000))


@settings(deadline=None, max_examples=25)
@given(shapes)
def test_no_contributions_exceed_the_sensitivity_and_equal_ones_reach_it(shape):
    rounds, dimensions, seed = shape
    c = lower_triangular(np.random.default_rng(seed), rounds, signed=False)
    for every in (1, 2):
        assert farthest(c, dimensions, every) <= sensitivity(c, every) * NEARLY
        assert farthest(c, dimensions, every) == pytest.approx(sensitivity(c, every))


def test_signs_alone_can_not_exceed_it_either():
    """One dimension, all contributions of norm 1."""
    c = toeplitz(square_root(5), 8)
    reached = [np.linalg.norm(c @ np.array(x)) for x in itertools.product((-1, 1), repeat=8)]
    assert max(reached) == pytest.approx(sensitivity(c))


def test_where_columns_point_apart_the_formula_is_refused_since_it_is_too_small():
    """Negative control: contributions of alternating sign move more than equal ones."""
    c = toeplitz([1.0, -0.5], 6)
    assert farthest(c, 1) > 2 * np.linalg.norm(c.sum(axis=1))
    with pytest.raises(ValueError, match="negative"):
        sensitivity(c)
    # Nobody contributes in two rounds that follow each other, so none of these columns meet.
    assert sensitivity(c, every=2) == pytest.approx(farthest(c, 1, every=2))


@settings(deadline=None, max_examples=40)
@given(shapes, st.booleans(), st.sampled_from([1, 2, 3]))
def test_no_factorisation_errs_less_than_independent_noise_in_full_batches(shape, signed, every):
    """The theorem and its corollary, with contributions that are found by search."""
    rounds, rows, seed = shape
    generator = np.random.default_rng(seed)
    a = generator.standard_normal((rows, rounds))
    c = lower_triangular(generator, rounds, signed)
    least = least_error(a)
    assert error(a, independent(a)) == pytest.approx(least)
    # What records contribute in the proof, and whatever else a search finds.
    worst = (a / np.linalg.norm(a, axis=0)).T
    classes = [np.zeros_like(worst) for _ in range(every)]
    for first, own in enumerate(classes):
        own[first::every] = worst[first::every]
    moved = max(*(np.linalg.norm(c @ own) for own in classes), farthest(c, rows, every))
    assert every * moved * np.linalg.norm(a @ np.linalg.inv(c)) >= least / NEARLY


def test_a_bound_that_overlooks_participations_would_be_beaten():
    """Negative control: charged for one round of each record, correlation seems to gain."""
    a, c = iterates(40), toeplitz(square_root(40), 40)
    charged_for_one = np.linalg.norm(c, axis=0).max() * np.linalg.norm(a @ np.linalg.inv(c))
    assert charged_for_one < 0.3 * least_error(a)


@pytest.mark.parametrize("rounds", [10, 40])
def test_a_search_over_bands_ends_where_the_theorem_says(rounds):
    for a in (scored(rounds, 0.9, 0.5), scored(rounds, 0.0, 0.0), iterates(rounds)):
        found = errors(a)
        assert found["schedule"] == pytest.approx(found["least"])
        assert min(found.values()) == pytest.approx(found["least"])
        assert found["4 bands"] <= 1.0 + 1e-6
        # It finds much where there is something: a record in every tenth round.
        assert found["1/10, 10 bands"] < 0.8 * found["1/10, constant"]
        assert found["1/10, 10 bands"] > found["least"]
    np.testing.assert_allclose(best_band(iterates(rounds), 4), np.eye(rounds), atol=1e-4)


@pytest.mark.parametrize(("momentum", "fraction"), [(0.0, 0.0), (0.9, 0.5), (0.9, 0.0), (0.5, 0.3)])
def test_the_scored_workload_is_what_server_and_strategy_compute(momentum, fraction):
    rounds = 7
    config = FedAvgConfig(server_learning_rate=1.0, server_momentum=momentum)
    strategy, found = STRATEGIES["fedavg"](config), []
    for impulse in np.eye(rounds, dtype=np.float32):
        weights = {"b": np.zeros(1, np.float32)}
        standing, models = Standing(weights=weights, state=strategy.init(weights)), []
        for value in impulse:
            mean = {"b": np.array([value], np.float32)}
            standing = strategy.apply(standing, Aggregate(mean, {"b": 1.0}, {"b": 1.0}))
            models.append(float(standing.weights["b"][0]))
        found.append(np.mean(models[-max(1, int(np.ceil(fraction * rounds))) :]))
    np.testing.assert_allclose(scored(rounds, momentum, fraction)[0], found, rtol=1e-5)


def test_the_noise_of_every_form_is_that_of_its_privacy():
    np.testing.assert_allclose(filters(np.eye(9)), np.eye(9))
    c = toeplitz(square_root(4), 9)
    # The release C G + Z at unit noise has the sensitivity of nine releases at unit noise.
    assert sensitivity(np.linalg.inv(filters(c))) == pytest.approx(3.0)


def test_trainings_of_the_benchmark_are_those_of_a_run(tmp_path):
    """With next to no noise the benchmark's model is the run's, but for the grid of integers."""
    settings = ["privacy.target_epsilon=null", "privacy.noise_multiplier=0.001"]
    training = Training("tiny", settings)
    run(training.experiment, tmp_path)
    expected = checkpoint.read(checkpoint.path_of(tmp_path / "checkpoints", 3)).model
    found = training.model(np.eye(3), seed=0)
    moved = training.model(1e5 * np.eye(3), seed=0)
    assert found.keys() == expected.keys()
    for name, vector in expected.items():
        np.testing.assert_allclose(found[name], vector, atol=5e-4, err_msg=name)
        assert np.abs(moved[name] - vector).max() > 1e-2  # it is no accident: noise is seen
