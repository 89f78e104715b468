from __future__ import annotations

import itertools

import numpy as np
import pytest

from fedfuse_ray.federation.messages.transforms import Transforms, divide_by_weights, weigh
from fedfuse_ray.federation.messages.updates import Update
from tests.support.federations import plan_of, random_blocks, tiny

FRACTIONS = {
    "fusion": {"a": 0.5, "b": 0.3, "c": 0.2},
    "encoder/ct": {"a": 0.25, "b": 0.75},
    "head/x": {"c": 1.0},
}

WEIGHED = Transforms((weigh(FRACTIONS),), (divide_by_weights(FRACTIONS),))


def owned(institution):
    sizes = {"fusion": 5, "encoder/ct": 3, "head/x": 2}
    return {name: n for name, n in sizes.items() if institution in FRACTIONS[name]}


def through(transforms, senders):
    """Send what `senders` own through transforms; returns the means of sums, and the updates."""
    updates = {who: random_blocks(owned(who), seed=ord(who)) for who in senders}
    sums, survivors = {}, {}
    for who in senders:
        for name, vector in transforms.sent(Update(updates[who]), who, 1).weights.items():
            sums[name] = sums.get(name, 0) + vector
            survivors[name] = (*survivors.get(name, ()), who)
    return transforms.means(Update(sums), survivors, 1).weights, updates


def test_the_sum_is_the_weighted_mean_over_a_blocks_owners():
    mean, updates = through(WEIGHED, "abc")
    for name, fractions in FRACTIONS.items():
        wanted = sum(fraction * updates[who][name] for who, fraction in fractions.items())
        np.testing.assert_allclose(mean[name], wanted, rtol=1e-5, atol=1e-6)
        assert mean[name].dtype == np.float32


@pytest.mark.parametrize("count", [1, 2])
def test_the_fractions_of_dropouts_are_shared_out_among_the_survivors(count):
    for senders in itertools.combinations("abc", count):
        mean, updates = through(WEIGHED, senders)
        for name, fractions in FRACTIONS.items():
            left = {who: f for who, f in fractions.items() if who in senders}
            if not left:
                assert name not in mean
                continue
            wanted = sum(f * updates[who][name] for who, f in left.items()) / sum(left.values())
            np.testing.assert_allclose(mean[name], wanted, rtol=1e-5, atol=1e-6)


def test_a_transform_leaves_its_input_alone():
    update = random_blocks(owned("a"))
    before = {name: vector.copy() for name, vector in update.items()}
    WEIGHED.sent(Update(update), "a", 1)
    for name, vector in before.items():
        np.testing.assert_array_equal(update[name], vector)


def test_control_variates_are_averaged_uniformly():
    """Algorithm 1, line 17 of SCAFFOLD: every participant counts alike."""
    values = {"a": np.float32([1, 2]), "b": np.float32([5, 8])}
    updates = {who: Update(controls={"encoder/ct": v}) for who, v in values.items()}
    sent = [WEIGHED.sent(update, who, 1) for who, update in updates.items()]
    total = Update(controls={"encoder/ct": sum(s.controls["encoder/ct"] for s in sent)})
    mean = WEIGHED.means(total, {"encoder/ct": ("a", "b")}, 1)
    np.testing.assert_array_equal(mean.controls["encoder/ct"], [3, 5])
    assert mean.weights == {}


def add(value):
    """Adds to the update of one sender on the way in."""
    return lambda update, who, round: update.map(lambda n, v: 2 * (v + np.float32(value)))


def take_off(value):
    """Takes it off on the way out."""
    return lambda sums, survivors, round: sums.map(lambda n, v: v / 2 - np.float32(value))


def test_a_chain_is_undone_in_reverse():
    """Both lists are applied in their order: what was done last is undone first."""
    chain = Transforms((add(1), add(10)), (take_off(10), take_off(1)))
    sent = chain.sent(Update({"x": np.float32([3])}), "a", 1)
    assert sent.weights["x"] == 2 * (2 * (3 + 1) + 10)
    assert chain.means(sent, {"x": ("a",)}, 1).weights["x"] == 3


def test_who_sends_nothing_is_not_transformed():
    chain = Transforms((lambda update, who, round: Update({"x": np.float32([1])}),))
    assert not chain.sent(Update(), "a", 1)


def test_a_plans_chain_weighs_by_the_plans_fractions():
    plan = plan_of(tiny())
    assert (len(plan.transforms.at_institution), len(plan.transforms.at_server)) == (1, 1)
    for block, fractions in plan.fractions.items():
        ones = Update({block: np.ones(3, np.float32)})
        for who, fraction in fractions.items():
            sent = plan.transforms.sent(ones, who, 1).weights[block]
            np.testing.assert_array_equal(sent, np.full(3, np.float32(fraction)))
            alone = plan.transforms.means(ones, {block: (who,)}, 1).weights[block]
            np.testing.assert_array_equal(alone, np.full(3, 1 / np.float32(fraction)))
