"""Weights by loss: who counts how much, what the server makes of it, and what it turns away."""

from __future__ import annotations

import numpy as np
import pytest

from fedfuse_ray.config import load
from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.checkpoints.checkpoint import Checkpoint
from fedfuse_ray.federation.messages import wire
from fedfuse_ray.federation.messages.updates import Update
from fedfuse_ray.federation.modes.sides import ServerSide
from fedfuse_ray.federation.server.weighting import LEAST, correction, loss_factors
from fedfuse_ray.models.initial import initial_blocks
from fedfuse_ray.runs.running import run
from tests.support.federations import plan_of, random_blocks, tiny

LOSSES = {"med-01": 0.5, "med-02": 2.0, "mat-01": 1.0}
STEPS = {"med-01": 4, "med-02": 1, "mat-01": 2}


def plan_with(*settings):
    return plan_of(tiny("strategy.weighting=loss", *settings))


def update_of(plan, initial, name):
    sizes = {block: initial[block].size for block in plan.blocks_of(plan.by_name[name])}
    return random_blocks(sizes, list(LOSSES).index(name))


def payload(plan, initial, name, loss, controls=False):
    """Return what an institution sends of a random update, weighed by its specimens."""
    update = update_of(plan, initial, name)
    sent_of = Update(update, dict(update) if controls else {})
    blocks = plan.transforms.sent(sent_of, name, 1).on_wire()
    sent = {block: vector.astype("<f4").tobytes() for block, vector in blocks.items()}
    sizes = {block: vector.size for block, vector in blocks.items()}
    return wire.pack(wire.Message(name, 1, "fp32", sent, sizes, STEPS[name], loss))


def aggregated(plan, losses, **said):
    initial = initial_blocks(plan.spec)
    side = ServerSide(plan, Checkpoint(0, initial))
    sent = [(name, payload(plan, initial, name, loss, **said)) for name, loss in losses.items()]
    return side.server, side.finish(1, sent).aggregation, initial


@pytest.mark.parametrize("exponent", [0, 1, 2.5])
def test_a_block_is_the_mean_by_specimens_and_losses(exponent):
    plan = plan_with(f"strategy.loss_exponent={exponent}")
    server, _, initial = aggregated(plan, LOSSES)
    for block, owners in plan.owners.items():
        counts = [plan.by_name[who].specimens * LOSSES[who] ** exponent for who in owners]
        updates = [update_of(plan, initial, who)[block].astype(np.float64) for who in owners]
        wanted = initial[block] + np.average(updates, axis=0, weights=counts)
        np.testing.assert_allclose(server.weights[block], wanted, rtol=1e-4, atol=1e-5)


def test_only_those_that_took_part_share_the_weight():
    plan = plan_with("strategy.loss_exponent=2")
    server, _, initial = aggregated(plan, {"med-02": 2.0, "mat-01": 1e-9})
    wanted = initial["encoder/ct"] + update_of(plan, initial, "med-02")["encoder/ct"]
    np.testing.assert_allclose(server.weights["encoder/ct"], wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(server.weights["encoder/mri"], initial["encoder/mri"])
    # What hardly counts for the fusion is all there is for a block of its own.
    alone = initial["head/materials"] + update_of(plan, initial, "mat-01")["head/materials"]
    np.testing.assert_allclose(server.weights["head/materials"], alone, rtol=1e-4, atol=1e-5)


def test_fednova_counts_steps_by_the_same_weights():
    plan = plan_with("strategy.kind=fednova")
    server, _, initial = aggregated(plan, LOSSES)
    counts = [plan.by_name[who].specimens * LOSSES[who] for who in LOSSES]
    steps = np.average([STEPS[who] for who in LOSSES], weights=counts)
    updates = [update_of(plan, initial, who)["fusion"] for who in LOSSES]
    wanted = initial["fusion"] + steps * np.average(updates, axis=0, weights=counts)
    np.testing.assert_allclose(server.weights["fusion"], wanted, rtol=1e-4, atol=1e-5)


def test_control_variates_are_averaged_alike():
    plan = plan_with("strategy.kind=scaffold")
    server, _, initial = aggregated(plan, LOSSES, controls=True)
    updates = [update_of(plan, initial, who)["fusion"] for who in LOSSES]
    kept = server.checkpoint({}).server.strategy["fusion"]
    np.testing.assert_allclose(kept, np.mean(updates, axis=0), rtol=1e-4, atol=1e-5)


def test_who_does_not_tell_its_loss_is_refused():
    _, said, _ = aggregated(plan_with(), {"med-01": 1.0, "med-02": None})
    assert said.refused == (("med-02", "did not tell its loss, by which it would be weighed"),)


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -1.0, True, 1, "1"])
def test_what_is_no_loss_is_refused(loss):
    _, said, _ = aggregated(plan_with(), {"med-01": 1.0, "med-02": loss})
    assert [who for who, _ in said.refused] == ["med-02"]
    assert "is no loss" in said.refused[0][1]


def test_the_worst_off_counts_one_and_nobody_nothing():
    factors = loss_factors({"a": 4.0, "b": 1.0, "c": 0.0}, 2.0)
    assert factors == {"a": 1.0, "b": 1 / 16, "c": pytest.approx(LEAST**2)}
    assert loss_factors({"a": 0.0, "b": 0.0}, 3.0) == {"a": 1.0, "b": 1.0}
    assert loss_factors({}, 1.0) == {}
    assert correction({"a": 0.25, "b": 0.5}, {"a": 1.0, "b": 1.0}) == 1.0


@pytest.mark.parametrize(
    ("settings", "paradigm"),
    [
        (("strategy.weighting=loss",), "fedfuse"),
        (("strategy.weighting=loss",), "federated_dp"),
        (
            ("strategy.weighting=loss", "network.aggregation.kind=buffered-async"),
            "fedfuse_nonprivate",
        ),
        (
            (
                "strategy.weighting=loss",
                "compression.codec=topk",
                "compression.feedback=ef21",
            ),
            "fedfuse_nonprivate",
        ),
    ],
)
def test_where_losses_cannot_be_shown_or_compared_it_is_refused(settings, paradigm):
    with pytest.raises(InputError, match=r"strategy\.weighting.*loss"):
        load("tiny", settings, paradigm=paradigm)


def test_a_run_weighs_by_the_losses_of_its_own_rounds(tmp_path):
    digests = {
        exponent: run(
            tiny("strategy.weighting=loss", f"strategy.loss_exponent={exponent}"),
            tmp_path / f"{exponent}",
        ).weights_sha256
        for exponent in (0, 2)
    }
    assert digests[0] == run(tiny(), tmp_path / "plain").weights_sha256 != digests[2]
