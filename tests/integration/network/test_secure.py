"""Secure rounds over simulated links: dropouts, thresholds, and a budget that is spent anyway."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedfuse_ray.federation.institution.private_gradients import joint_step
from fedfuse_ray.federation.modes.grid import grid_of
from fedfuse_ray.runs.running import run
from tests.support.federations import guarantee_of, plan_of, tiny
from tests.support.watching import (
    DEADLINE,
    ELUSIVE,
    NO_COLLUDERS,
    SLOW,
    TWO_AWAY,
    Watched,
    rows_by_key,
    seconds_of,
    status_of,
    tables,
)


class Gradients:
    """Keeps the clipped sums that institutions would send, before noise and masks."""

    def __init__(self, monkeypatch):
        self.sums = {}

        def kept(training, round, *arguments):
            result = joint_step(training, round, *arguments)
            self.sums[round, training.name] = result.update.weights
            return result

        monkeypatch.setattr("fedfuse_ray.federation.institution.institution.joint_step", kept)

    def mean(self, plan, block, round, who):
        total = sum(self.sums[round, name][block].astype(np.float64) for name in who)
        return total / grid_of(plan, round).expected_batch(who)


NOISE = 0.005
FAINT = (
    "privacy.target_epsilon=null",
    f"privacy.noise_multiplier={NOISE}",
    NO_COLLUDERS,
    "strategy.server_momentum=0",
    "strategy.average_last=0",
)


@pytest.mark.parametrize("codec", ["fp32", "modint"])
def test_a_secure_round_recovers_from_the_late(tmp_path, monkeypatch, codec):
    gradients, watched = Gradients(monkeypatch), Watched()
    experiment = tiny(SLOW, DEADLINE, *FAINT, f"compression.codec={codec}", paradigm="fedfuse")
    run(experiment, tmp_path, executor=watched)
    plan = plan_of(experiment)
    clip, compared = experiment.privacy.clip_norm, 0
    for number, step in enumerate(watched.steps(), 1):
        for name, moved in step.items():
            owners = plan.owners[name]
            left = [who for who in owners if who != "med-01"]
            if not left or name.startswith("encoder/"):
                continue  # Withheld, or frozen.
            shares = plan.privacy.shares(name)
            batch = grid_of(plan, number).expected_batch(left)
            std = NOISE * clip * math.sqrt(len(left) / shares) / batch
            off = moved - gradients.mean(plan, name, number, left)
            # Rounding adds a twelfth of a grid step's square for each, at most a share's.
            assert 0.7 * std < np.sqrt(np.mean(off**2)) < 1.25 * std
            assert np.abs(off).max() < 6 * std
            compared += 1
            if len(left) < len(owners):
                other = moved - gradients.mean(plan, name, number, owners)
                assert np.abs(other).max() > 6 * std
    assert compared >= 6


@pytest.mark.parametrize(("tolerated", "moving"), [(1, True), (0, False)])
def test_blocks_with_too_few_owners_are_withheld(tmp_path, tolerated, moving):
    watched = Watched()
    experiment = tiny(
        SLOW,
        DEADLINE,
        f"privacy.tolerated_dropouts={tolerated}",
        NO_COLLUDERS,
        "model.encoder.trainable=true",
        paradigm="fedfuse",
    )
    run(experiment, tmp_path, executor=watched)
    plan = plan_of(experiment)
    assert plan.owners["encoder/mri"] == ("med-01",)
    for step in watched.steps():
        moved = {name: bool(vector.any()) for name, vector in step.items()}
        wanted = {
            name: "med-01" not in owners or (moving and len(owners) > 1)
            for name, owners in plan.owners.items()
        }
        assert moved == wanted
        assert not moved["encoder/mri"]
        assert moved["encoder/spectroscopy"]


def test_a_round_below_the_threshold_changes_nothing_but_is_charged(tmp_path):
    settings = (DEADLINE, NO_COLLUDERS, "training.rounds=8", "seed=2", "privacy.scores=shown")
    watched = Watched()
    summary = run(tiny(ELUSIVE, *settings, paradigm="fedfuse"), tmp_path / "a", executor=watched)
    rounds, _ = tables(tmp_path / "a")
    told = status_of(tmp_path / "a")
    assert summary.rounds == 8
    lost = [all(told[n, who] == "absent" for who in ("med-01", "med-02")) for n in range(1, 9)]
    assert 0 < sum(lost[:-1]) < 7
    for number, (gone, step) in enumerate(zip(lost, watched.steps(), strict=True), 1):
        row = rounds[number - 1]
        assert any(v.any() for v in step.values()) != gone
        assert (row["loss"] is None) == gone
        assert (row["participants"] == 0) == (row["dropouts"] == 3) == gone
        assert told[number, "mat-01"] == ("failed" if gone else "sent")
        assert row["simulated_seconds"] > 0
    undisturbed = run(tiny(*settings, paradigm="fedfuse"), tmp_path / "b")
    assert [r["epsilon"] for r in rounds] == [r["epsilon"] for r in tables(tmp_path / "b")[0]]
    assert guarantee_of(summary) == guarantee_of(undisturbed)
    assert summary.weights_sha256 != undisturbed.weights_sha256


def test_a_round_in_which_too_many_are_late_is_lost(tmp_path):
    watched = Watched()
    slow = "{up_mbps: 0.001, down_mbps: 10.0}"
    links = f"network.links={{med-01: {slow}, med-02: {slow}}}"
    settings = (links, DEADLINE, NO_COLLUDERS, "training.rounds=2")
    run(tiny(*settings, paradigm="fedfuse"), tmp_path, executor=watched)
    assert not any(v.any() for step in watched.steps() for v in step.values())
    rounds, rows = tables(tmp_path)
    assert [row["status"] for row in rows] == 2 * ["late", "late", "failed"]
    for row in rounds:
        assert (row["participants"], row["dropouts"], row["loss"]) == (0, 3, None)
        assert row["simulated_seconds"] >= 2.0


def test_a_secure_round_begins_when_enough_are_online(tmp_path):
    run(tiny(TWO_AWAY, NO_COLLUDERS, paradigm="fedfuse"), tmp_path)
    rounds, _ = tables(tmp_path)
    assert [row["participants"] for row in rounds] == [3, 3, 3]
    assert rounds[0]["simulated_start"] == 3.0


@pytest.mark.parametrize("mode", ["record-distributed", "record-local", "client", "local-update"])
def test_the_network_changes_no_epsilon(tmp_path, mode):
    settings = (f"privacy.mode={mode}", NO_COLLUDERS, "training.rounds=2")
    ideal = run(tiny(*settings, paradigm="fedfuse"), tmp_path / "ideal")
    network = ("network.preset=rural", SLOW, DEADLINE)
    real = run(tiny(*settings, *network, paradigm="fedfuse"), tmp_path / "real")
    assert "late" in status_of(tmp_path / "real").values()
    assert guarantee_of(real) == guarantee_of(ideal)
    assert real.privacy.epsilon > 0
    assert real.weights_sha256 != ideal.weights_sha256


def test_a_secure_round_waits_at_each_step_for_the_slowest(tmp_path):
    text = "up_mbps: 1.0, down_mbps: 4.0, latency_ms: 100.0"
    run(tiny(f"network.links={{mat-01: {{{text}}}}}", paradigm="fedfuse"), tmp_path)
    rounds, _ = tables(tmp_path)
    for row in rounds:
        own = rows_by_key(tmp_path)[row["round"], "mat-01"]
        # Its eight other messages: both ways at four steps but the last, which is not answered,
        # and the update's answer; their bytes are what the broadcast and the update leave over.
        broadcast = (own["download_seconds"] - 0.1) * 4e6 / 8
        update = (own["upload_seconds"] - 0.1) * 1e6 / 8
        up, down = own["uplink_bytes"] - update, own["downlink_bytes"] - broadcast
        protocol = 8 * 0.1 + 8 * up / 1e6 + 8 * down / 4e6
        assert row["simulated_seconds"] == pytest.approx(seconds_of(own) + protocol)
