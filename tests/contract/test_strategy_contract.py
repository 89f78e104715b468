"""What every strategy keeps to, whatever its rule."""

from __future__ import annotations

import numpy as np
import pytest

from fedfuse_ray.config import load
from fedfuse_ray.federation.checkpoints import checkpoint as checkpoints
from fedfuse_ray.federation.checkpoints.checkpoint import Checkpoint
from fedfuse_ray.federation.checkpoints.state import ServerState
from fedfuse_ray.federation.messages.updates import controls_on_wire
from fedfuse_ray.federation.strategies import STRATEGIES, Aggregate, Standing
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
    return Aggregate(
        mean=random_blocks(sent, seed),
        steps=dict.fromkeys(sent, 3.0),
        participation=dict.fromkeys(sent, 0.5),
        controls=random_blocks(sent, seed + 100) if strategy.local.controls else {},
    )


def first_of(strategy):
    weights = random_blocks(SIZES)
    return Standing(weights=weights, state=strategy.init(weights))


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
    standing = first_of(strategy)
    aggregate = aggregate_of(strategy, SIZES, 1)
    given = (standing.weights, standing.state, aggregate.mean, aggregate.controls)
    before = [copied(blocks) for blocks in given]
    for blocks in given:
        for vector in blocks.values():
            vector.flags.writeable = False  # The wire and Ray hand out read-only arrays.
    strategy.apply(standing, aggregate)
    for blocks, as_it_was in zip(given, before, strict=True):
        same(blocks, as_it_was)


def test_apply_is_a_function_of_its_inputs(strategy):
    standing = first_of(strategy)
    aggregate = aggregate_of(strategy, SIZES, 1)
    first, second = (strategy.apply(standing, aggregate) for _ in range(2))
    same(first.weights, second.weights)
    same(first.state, second.state)


def test_what_was_sent_moves_and_what_nobody_sent_stays(strategy):
    before = first_of(strategy)
    after = strategy.apply(before, aggregate_of(strategy, ["fusion"], 1))
    assert after.weights.keys() == before.weights.keys()
    assert not np.array_equal(after.weights["fusion"], before.weights["fusion"])
    for name in ("encoder/ct", "head/x"):
        np.testing.assert_array_equal(after.weights[name], before.weights[name])
    for name in before.state:
        if "fusion" not in name:
            np.testing.assert_array_equal(after.state[name], before.state[name])


def test_vectors_keep_name_size_and_type(strategy):
    first = last = first_of(strategy)
    for seed in range(3):
        last = strategy.apply(last, aggregate_of(strategy, SIZES, seed))
    assert last.state.keys() == first.state.keys()
    for after, before in ((last.weights, first.weights), (last.state, first.state)):
        for name, vector in after.items():
            assert vector.dtype == np.float32
            assert vector.shape == before[name].shape
            assert np.isfinite(vector).all()


def test_state_survives_a_checkpoint(strategy, tmp_path):
    standing = strategy.apply(first_of(strategy), aggregate_of(strategy, SIZES, 1))
    kept = Checkpoint(1, standing.weights, ServerState(strategy=standing.state))
    read = checkpoints.read(checkpoints.save(tmp_path, kept))
    same(read.server.strategy, standing.state)
    aggregate = aggregate_of(strategy, SIZES, 2)
    on = strategy.apply(standing, aggregate)
    again = Standing(weights=read.weights, state=read.server.strategy)
    resumed = strategy.apply(again, aggregate)
    same(resumed.weights, on.weights)
    same(resumed.state, on.state)


def test_a_mean_update_of_zero_leaves_fresh_weights_where_they_are(strategy):
    before = first_of(strategy)
    aggregate = aggregate_of(strategy, SIZES, 1)
    zero, still = (
        {name: np.zeros_like(vector) for name, vector in blocks.items()}
        for blocks in (aggregate.mean, aggregate.controls)
    )
    nothing = Aggregate(zero, aggregate.steps, aggregate.participation, still)
    same(strategy.apply(before, nothing).weights, before.weights)


def test_the_broadcast_names_blocks_of_the_state(strategy):
    first = first_of(strategy)
    controls = strategy.controls(first.state)
    assert not controls_on_wire(controls).keys() & first.weights.keys()
    assert controls.keys() <= first.weights.keys()
