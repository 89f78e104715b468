"""Noise on the broadcast, as it really reaches the server's sums, with faults that must be caught.

An institution's guarantee against whoever sees all broadcasts rests on the noise in a block's sum
that this observer does not know: all owners' but one colluder's, and the server's.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fedfuse_ray.federation.messages.transforms import add_lacking_noise
from fedfuse_ray.federation.messages.updates import Update
from tests.support.federations import plan_of, tiny

ROUNDS = 12
SIZE = 400
MODE = ("privacy.mode=local-update", f"training.rounds={ROUNDS}", "privacy.target_epsilon=8")


def planned(*settings):
    return plan_of(tiny(*MODE, *settings, paradigm="fedfuse"))


@pytest.fixture(scope="module")
def plan():
    return planned("privacy.uplink_exposures=3")


def with_other_noise(plan, noise):
    """Return the plan's transforms with another noise of the server's, or none, in its place."""
    _, mean = plan.transforms.at_server
    return dataclasses.replace(plan.transforms, at_server=(noise, mean) if noise else (mean,))


def unknown_noise(plan, transforms, missing=()):
    """Return what the colluder can't subtract of each block's noise, over all rounds, by block."""
    noise = {name: [] for name in plan.owners}
    for round in range(1, ROUNDS + 1):
        uploads = {
            p.name: transforms.sent(
                Update({b: np.zeros(SIZE, np.float32) for b in plan.blocks_of(p)}), p.name, round
            ).weights
            for p in plan.participants
            if p.name not in missing
        }
        for name, owners in plan.owners.items():
            there = tuple(who for who in owners if who in uploads)
            if not there:
                continue
            total = sum(uploads[who][name] for who in there)
            mean = transforms.means(Update({name: total}), {name: there}, round).weights[name]
            # The last owner colludes, where it is not the one to be protected.
            known = uploads[there[-1]][name] if len(there) > 1 else np.float32(0)
            noise[name].append(mean * np.float32(len(owners)) - known)
    return {name: np.concatenate(values) for name, values in noise.items() if values}


def is_as_charged(plan, noise):
    """Whether every block has the charged variance or more, at five standard deviations."""
    terms = plan.privacy
    event = terms.events("med-01", (), 1)[-1]
    assert event.observer == "downlink"
    charged = (event.noise_multiplier * terms.config.clip_norm) ** 2
    return all(np.var(v) > charged * (1 - 5 * np.sqrt(2 / v.size)) for v in noise.values())


def test_every_broadcast_carries_the_charged_noise_and_not_more_than_it_needs(plan):
    noise = unknown_noise(plan, plan.transforms)
    assert is_as_charged(plan, noise)
    event = plan.privacy.events("med-01", (), 1)[-1]
    charged = (event.noise_multiplier * plan.privacy.config.clip_norm) ** 2
    for vector in noise.values():
        assert np.var(vector) == pytest.approx(charged, rel=5 * np.sqrt(2 / vector.size))


@pytest.mark.parametrize("missing", ["med-01", "med-02", "mat-01"])
def test_the_server_makes_up_for_owners_that_dropped_out(plan, missing):
    assert is_as_charged(plan, unknown_noise(plan, plan.transforms, (missing,)))


def test_a_server_that_adds_nothing_is_caught(plan):
    assert not is_as_charged(plan, unknown_noise(plan, with_other_noise(plan, None)))


def test_a_server_that_counts_the_colluders_noise_is_caught(plan):
    config = plan.privacy.config.model_copy(update={"tolerated_dropouts": 0})
    trusting = dataclasses.replace(plan.privacy, config=config)
    for terms, charged in ((plan.privacy, True), (trusting, False)):
        transforms = with_other_noise(plan, add_lacking_noise(terms.lacking_std, plan.randomness))
        assert is_as_charged(plan, unknown_noise(plan, transforms)) == charged


def test_a_server_that_counts_those_who_dropped_out_is_caught(plan):
    noise = plan.transforms.at_server[0]

    def forgetful(sums, survivors, round):
        return noise(sums, plan.owners, round)

    transforms = with_other_noise(plan, forgetful)
    assert is_as_charged(plan, unknown_noise(plan, transforms))
    assert not is_as_charged(plan, unknown_noise(plan, transforms, ("med-02",)))


def test_the_noise_is_the_rounds_and_the_blocks_own_and_comes_again(plan):
    noise, owners = plan.transforms.at_server[0], dict.fromkeys(("fusion", "head/medical"), ("a",))
    zeros = Update({name: np.zeros(SIZE, np.float32) for name in owners})
    first, second, again = (noise(zeros, owners, round).weights for round in (1, 2, 1))
    np.testing.assert_array_equal(first["fusion"], again["fusion"])
    for other in (second["fusion"], first["head/medical"]):
        assert abs(np.corrcoef(first["fusion"], other)[0, 1]) < 5 / np.sqrt(SIZE)


def test_nothing_is_added_where_all_uploads_may_be_seen():
    plan = planned(f"privacy.uplink_exposures={ROUNDS}")
    sums = {name: np.ones(SIZE, np.float32) for name in plan.owners}
    noise, _ = plan.transforms.at_server
    noised = noise(Update(sums), plan.owners, 1).weights
    for name, vector in sums.items():
        np.testing.assert_array_equal(noised[name], vector)
