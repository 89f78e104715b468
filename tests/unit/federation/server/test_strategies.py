"""Strategies against their papers' equations, computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fedfuse_ray.config import load
from fedfuse_ray.federation.strategies import STRATEGIES, Aggregate, Standing

WEIGHTS = {"a": np.float32([1, 2]), "b": np.float32([3])}
UPDATE = np.float32([0.5, -1])


def strategy_of(kind, *settings):
    settings = (f"strategy.kind={kind}", *settings)
    return STRATEGIES[kind](load("tiny", settings).strategy)


def aggregate(mean=UPDATE, steps=1.0, participation=1.0, name="a"):
    return Aggregate({name: mean}, {name: steps}, {name: participation})


def rounds(strategy, means):
    """Apply one aggregate after the other to block `a`; returns its weights after each."""
    standing = Standing(weights=dict(WEIGHTS), state=strategy.init(WEIGHTS))
    seen = []
    for mean in means:
        standing = strategy.apply(standing, aggregate(np.float32(mean)))
        np.testing.assert_array_equal(standing.weights["b"], WEIGHTS["b"])
        seen.append(standing.weights["a"])
    return seen


def test_fedavg_adds_the_mean_update():
    (after,) = rounds(strategy_of("fedavg"), [UPDATE])
    np.testing.assert_array_equal(after, [1.5, 1])


def test_the_server_learning_rate_scales_the_step():
    (after,) = rounds(strategy_of("fedavg", "strategy.server_learning_rate=0.5"), [UPDATE])
    np.testing.assert_array_equal(after, [1.25, 1.5])


def test_server_momentum_is_a_heavy_ball():
    strategy = strategy_of("fedavg", "strategy.server_momentum=0.5")
    first, second, third = rounds(strategy, [[1, 0], [0, 4], [0, 0]])
    np.testing.assert_array_equal(first, [2, 2])
    np.testing.assert_array_equal(second, [2.5, 6])  # 0.5 * (1, 0) + (0, 4)
    np.testing.assert_array_equal(third, [2.75, 8])  # 0.5 * (0.5, 4)


def test_fedprox_pulls_at_the_institutions_and_averages_at_the_server():
    strategy = strategy_of("fedprox", "strategy.proximal_mu=0.3")
    assert strategy.local.proximal_mu == 0.3
    (after,) = rounds(strategy, [UPDATE])
    np.testing.assert_array_equal(after, [1.5, 1])


def test_fednova_multiplies_by_the_effective_number_of_steps():
    strategy = strategy_of("fednova")
    assert strategy.local.normalise
    after = strategy.apply(Standing(weights=WEIGHTS, state={}), aggregate(steps=4.0))
    np.testing.assert_array_equal(after.weights["a"], [3, -2])


def test_scaffold_moves_its_control_by_the_fraction_that_took_part():
    strategy = strategy_of("scaffold")
    assert strategy.local.controls
    state = strategy.init(WEIGHTS)
    assert {name: vector.tolist() for name, vector in state.items()} == {
        "a": [0, 0],
        "b": [0],
    }
    taken = Aggregate(
        mean={"a": UPDATE},
        steps={"a": 1.0},
        participation={"a": 0.25},
        controls={"a": np.float32([2, 4])},
    )
    after = strategy.apply(Standing(weights=WEIGHTS, state=state), taken)
    np.testing.assert_array_equal(after.weights["a"], [1.5, 1])
    np.testing.assert_array_equal(after.state["a"], [0.5, 1])
    np.testing.assert_array_equal(after.state["b"], [0])
    assert strategy.controls(after.state) == after.state


def test_strategies_without_controls_broadcast_nothing():
    for kind in set(STRATEGIES) - {"scaffold"}:
        strategy = strategy_of(kind)
        assert strategy.controls(strategy.init(WEIGHTS)) == {}


SETTINGS = (
    "strategy.server_learning_rate=0.1",
    "strategy.beta1=0.9",
    "strategy.beta2=0.99",
    "strategy.adaptivity=0.01",
)


@pytest.mark.parametrize("kind", ["fedadam", "fedyogi"])
def test_adaptive_strategies_follow_algorithm_2(kind):
    means = [[0.5, -1.0], [0.25, 3.0], [-2.0, 0.0]]
    x = np.array([1.0, 2.0])
    m, v = np.zeros(2), np.full(2, 0.01**2)
    wanted = []
    for mean in np.array(means):
        m = 0.9 * m + 0.1 * mean
        if kind == "fedadam":
            v = 0.99 * v + 0.01 * mean**2
        else:
            v = v - 0.01 * mean**2 * np.sign(v - mean**2)
        x = x + 0.1 * m / (np.sqrt(v) + 0.01)
        wanted.append(x)
    got = rounds(strategy_of(kind, *SETTINGS), means)
    np.testing.assert_allclose(got, wanted, rtol=1e-5)
    assert all(step.dtype == np.float32 for step in got)


def test_yogi_and_adam_differ():
    means = [[0.5, -1.0], [0.0, 0.0]]
    adam, yogi = (rounds(strategy_of(kind, *SETTINGS), means) for kind in ("fedadam", "fedyogi"))
    assert not np.allclose(adam[1], yogi[1])
