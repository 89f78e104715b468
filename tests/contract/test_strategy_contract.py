"""What every strategy keeps to, whatever its rule."""

from __future__ import annotations

import numpy as np
import pytest

from fedfuse_ray.config import load
from fedfuse_ray.federation.checkpoints import checkpoint as checkpoints
from fedfuse_ray.federation.checkpoints.checkpoint import Checkpoint
from fedfuse_ray.federation.strategies import CONTROL, STRATEGIES, Aggregate
from tests.support.federations import random_blocks

SIZES = {"encoder/ct": 6, "fusion": 4, "head/x": 2}
KINDS = [*STRATEGIES, "fedavg with momentum"]


@pytest.fixture(params=KINDS)
def strategy(request):
    kind = request.param.split()[0]
    settings = [f"strategy.kind={kind}"]
    if "momentum" in request.param:
        settings.append("strategy.server_momentum=0.9")
    return STRATEGIES[kind](load("tiny", settings).strategy)


def aggregate_of(strategy, names, seed):
    sent = {name: SIZES[name] for name in names}
    if strategy.local.controls:
        sent |= {CONTROL + name: SIZES[name] for name in names}
    return Aggregate(
        mean=random_blocks(sent, seed),
        steps=dict.fromkeys(sent, 3.0),
        participation=dict.fromkeys(sent, 0.5),
    )


def copied(blocks):
    return {name: vector.copy() for name, vector in blocks.items()}


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


def test_every_kind_of_the_config_has_a_strategy():
    kinds = load("tiny").model_json_schema()["$defs"]
    configured = {
        definition["properties"]["kind"]["const"]
        for name, definition in kinds.items()
        if "server_learning_rate" in definition.get("properties", {})
    }
    assert configured == set(STRATEGIES)


def test_apply_leaves_its_inputs_unmodified(strategy):
    weights = random_blocks(SIZES)
    state = strategy.init(weights)
    aggregate = aggregate_of(strategy, SIZES, 1)
    before = copied(weights), copied(state), copied(aggregate.mean)
    for vector in [*weights.values(), *state.values(), *aggregate.mean.values()]:
        vector.flags.writeable = False  # The wire and Ray hand out read-only arrays.
    strategy.apply(state, weights, aggregate)
    same(weights, before[0])
    same(state, before[1])
    same(aggregate.mean, before[2])


def test_apply_is_a_function_of_its_inputs(strategy):
    weights = random_blocks(SIZES)
    state = strategy.init(weights)
    aggregate = aggregate_of(strategy, SIZES, 1)
    first, second = (strategy.apply(state, weights, aggregate) for _ in range(2))
    same(first[0], second[0])
    same(first[1], second[1])


def test_what_was_sent_moves_and_what_nobody_sent_stays(strategy):
    weights = random_blocks(SIZES)
    state = strategy.init(weights)
    weights_after, state_after = strategy.apply(
        state, weights, aggregate_of(strategy, ["fusion"], 1)
    )
    assert weights_after.keys() == weights.keys()
    assert not np.array_equal(weights_after["fusion"], weights["fusion"])
    for name in ("encoder/ct", "head/x"):
        np.testing.assert_array_equal(weights_after[name], weights[name])
    for name in state:
        if "fusion" not in name:
            np.testing.assert_array_equal(state_after[name], state[name])


def test_vectors_keep_name_size_and_type(strategy):
    weights = random_blocks(SIZES)
    state = strategy.init(weights)
    weights_after, state_after = weights, state
    for seed in range(3):
        aggregate = aggregate_of(strategy, SIZES, seed)
        weights_after, state_after = strategy.apply(state_after, weights_after, aggregate)
    assert state_after.keys() == state.keys()
    for after, before in ((weights_after, weights), (state_after, state)):
        for name, vector in after.items():
            assert vector.dtype == np.float32
            assert vector.shape == before[name].shape
            assert np.isfinite(vector).all()


def test_state_survives_a_checkpoint(strategy, tmp_path):
    weights = random_blocks(SIZES)
    weights, state = strategy.apply(
        strategy.init(weights), weights, aggregate_of(strategy, SIZES, 1)
    )
    path = checkpoints.save(tmp_path, Checkpoint(1, weights, state))
    read = checkpoints.read(path)
    same(read.strategy, state)
    aggregate = aggregate_of(strategy, SIZES, 2)
    on = strategy.apply(state, weights, aggregate)
    resumed = strategy.apply(read.strategy, read.weights, aggregate)
    same(resumed[0], on[0])
    same(resumed[1], on[1])


def test_a_mean_update_of_zero_leaves_fresh_weights_where_they_are(strategy):
    weights = random_blocks(SIZES)
    aggregate = aggregate_of(strategy, SIZES, 1)
    zero = {name: np.zeros_like(vector) for name, vector in aggregate.mean.items()}
    still = Aggregate(zero, aggregate.steps, aggregate.participation)
    same(strategy.apply(strategy.init(weights), weights, still)[0], weights)


def test_the_broadcast_names_blocks_of_the_state(strategy):
    weights = random_blocks(SIZES)
    broadcast = strategy.broadcast(strategy.init(weights))
    assert not broadcast.keys() & weights.keys()
    assert {name.removeprefix(CONTROL) for name in broadcast} <= weights.keys()
