"""What every strategy keeps to, whatever its rule."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fedfuse_ray.blocks import sha256
from fedfuse_ray.config import load
from fedfuse_ray.federation.checkpoints import checkpoint as checkpoints
from fedfuse_ray.federation.checkpoints.checkpoint import Checkpoint
from fedfuse_ray.federation.checkpoints.state import ServerState
from fedfuse_ray.federation.messages.updates import controls_on_wire
from fedfuse_ray.federation.rounds.serial import SerialExecutor
from fedfuse_ray.federation.strategies import STRATEGIES, Aggregate, Standing
from tests.support.federations import dataset_of, plan_of, random_blocks, tiny

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


# Beside what else a server keeps.

PRIVATE = {
    "record-distributed": ("privacy.mode=record-distributed",),
    "adaptive clipping": ("privacy.adaptive_clipping.enabled=true",),
    "adaptive noise": ("privacy.noise_schedule=adaptive",),
    "record-local": ("privacy.mode=record-local",),
    "client": ("privacy.mode=client",),
    "local-update": ("privacy.mode=local-update",),
}
NOISE = ("privacy.target_epsilon=null", "privacy.noise_multiplier=0.1")
"""Little, so that so small a federation releases a signal that the noise can follow."""
ROUNDS, UNPRIVATE = 4, "fedfuse_nonprivate"


class OwnState:
    """A strategy that hands its own state back and nothing else, and is shown nothing else."""

    def __init__(self, rule):
        self.rule, self.local = rule, rule.local
        self.init, self.controls = rule.init, rule.controls

    def apply(self, before, aggregate):
        own = self.init(before.weights).keys()
        assert before.state.keys() == own
        after = self.rule.apply(before, aggregate)
        return Standing(weights=after.weights, state={name: after.state[name] for name in own})


def kinds_and_privacy():
    for kind in KINDS:
        for privacy in ("none", *PRIVATE):
            # Control variates, and numbers of steps, are never private: such runs are refused.
            if privacy == "none" or kind not in ("scaffold", "fednova"):
                yield pytest.param(kind, privacy, id=f"{kind}, {privacy}")


def planned(kind, privacy):
    strategy, _, momentum = kind.partition(" ")
    settings = (
        f"training.rounds={ROUNDS}",
        f"strategy.kind={strategy}",
        "strategy.average_last=1",
        *(["strategy.server_momentum=0.9"] if momentum else []),
        *((*NOISE, *PRIVATE[privacy]) if privacy in PRIVATE else ()),
    )
    return plan_of(tiny(*settings, paradigm="fedfuse" if privacy in PRIVATE else UNPRIVATE))


def begun(plan, path=None):
    executor = SerialExecutor()
    executor.start(plan, dataset_of(plan.experiment).folder)
    executor.load(path)
    return executor


def rounds_of(executor, folder, first=1):
    """Train on to the end; yields what every round leaves behind, as it was saved and read."""
    for number in range(first, ROUNDS + 1):
        executor.train(number)
        executor.save(folder)
        yield checkpoints.read(checkpoints.path_of(folder, number))


@pytest.mark.parametrize(("kind", "privacy"), [*kinds_and_privacy()])
def test_its_own_state_is_all_that_a_strategy_has_to_hand_back(
    kind, privacy, tmp_path, monkeypatch
):
    plain, plan = kind.split()[0], planned(kind, privacy)
    real = STRATEGIES[plain]
    monkeypatch.setitem(STRATEGIES, plain, lambda config: OwnState(real(config)))
    executor = begun(plan)
    first, left = executor.weights, list(rounds_of(executor, tmp_path / "whole"))
    # What is given out is the mean of all rounds' weights.
    for name, vector in left[-1].model.items():
        each = [kept.weights[name] for kept in left]
        wanted = np.mean(each, axis=0, dtype=np.float64)
        np.testing.assert_allclose(vector, wanted, rtol=1e-5, atol=1e-6)
    assert executor.sha256() == sha256(left[-1].model)
    assert sha256(left[-1].model) != sha256(left[-1].weights)
    assert any(np.any(left[0].weights[n] != first[n]) for n in first)
    # What follows from a checkpoint is what followed in one go.
    again = begun(plan, checkpoints.save(tmp_path / "again", left[0]))
    (*_, resumed) = rounds_of(again, tmp_path / "again", first=2)
    assert again.sha256() == executor.sha256()
    same(resumed.server.strategy, left[-1].server.strategy)
    released = [kept.server.released for kept in left]
    assert resumed.server.released == released[-1]
    assert resumed.server.noise_history == left[-1].server.noise_history
    if privacy == "adaptive clipping":
        norms = [plan.terms.config.clip_norm, *(each.clip_norm for each in released)]
        assert len(set(norms)) == len(norms)  # It moves in every round.
    else:
        assert {each.clip_norm for each in released} == {None}
    if privacy == "adaptive noise":
        factors = [1.0, *(each.noise_factor for each in released)]
        assert list(left[-1].server.noise_history.spent) == factors[:-2]
        assert len(left[-1].server.noise_history.signals) == len(factors[:-2])
        assert len(set(factors)) > 2  # From the third round on it follows what was released.


def test_a_forgotten_clip_norm_would_be_seen(tmp_path):
    """The control of the test above: the clip norm of a checkpoint matters."""
    plan, digests = planned("fedavg", "adaptive clipping"), set()
    executor = begun(plan)
    executor.train(1)
    executor.save(tmp_path / "first")
    kept = checkpoints.read(checkpoints.path_of(tmp_path / "first", 1))
    first = dataclasses.replace(kept.server.released, clip_norm=plan.terms.config.clip_norm)
    for released in (kept.server.released, first):
        server = dataclasses.replace(kept.server, released=released)
        edited = dataclasses.replace(kept, server=server)
        again = begun(plan, checkpoints.save(tmp_path / "again", edited))
        again.train(2)
        digests.add(again.sha256())
    assert len(digests) == 2
