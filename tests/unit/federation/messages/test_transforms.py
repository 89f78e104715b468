from __future__ import annotations

import itertools

import numpy as np
import pytest

from fedfuse_ray.federation.messages.transforms import Weigh, apply_chain, build_chain, undo_chain
from tests.support.federations import plan_of, random_blocks, tiny

FRACTIONS = {
    "fusion": {"a": 0.5, "b": 0.3, "c": 0.2},
    "encoder/ct": {"a": 0.25, "b": 0.75},
    "head/x": {"c": 1.0},
}


def owned(institution):
    sizes = {"fusion": 5, "encoder/ct": 3, "head/x": 2}
    return {name: n for name, n in sizes.items() if institution in FRACTIONS[name]}


def through(transform, senders):
    """Send what `senders` own through a transform; returns sums undone, and the updates."""
    updates = {who: random_blocks(owned(who), seed=ord(who)) for who in senders}
    sums, survivors = {}, {}
    for who in senders:
        for name, vector in transform.apply(updates[who], who, 1).items():
            sums[name] = sums.get(name, 0) + vector
            survivors[name] = (*survivors.get(name, ()), who)
    return transform.undo(sums, survivors, 1), updates


def test_the_sum_is_the_weighted_mean_over_a_blocks_owners():
    mean, updates = through(Weigh(FRACTIONS), "abc")
    for name, fractions in FRACTIONS.items():
        wanted = sum(fraction * updates[who][name] for who, fraction in fractions.items())
        np.testing.assert_allclose(mean[name], wanted, rtol=1e-5, atol=1e-6)
        assert mean[name].dtype == np.float32


@pytest.mark.parametrize("count", [1, 2])
def test_the_fractions_of_dropouts_are_shared_out_among_the_survivors(count):
    for senders in itertools.combinations("abc", count):
        mean, updates = through(Weigh(FRACTIONS), senders)
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
    Weigh(FRACTIONS).apply(update, "a", 1)
    for name, vector in before.items():
        np.testing.assert_array_equal(update[name], vector)


def test_control_variates_are_averaged_uniformly():
    """Algorithm 1, line 17 of SCAFFOLD: every participant counts alike."""
    values = {"a": np.float32([1, 2]), "b": np.float32([5, 8])}
    weigh = Weigh(FRACTIONS)
    sent = [weigh.apply({"control/encoder/ct": v}, w, 1) for w, v in values.items()]
    total = {"control/encoder/ct": sum(s["control/encoder/ct"] for s in sent)}
    mean = weigh.undo(total, {"control/encoder/ct": ("a", "b")}, 1)
    np.testing.assert_array_equal(mean["control/encoder/ct"], [3, 5])


class _Add:
    """Adds to the sum of one sender on the way in, and takes it off on the way out."""

    def __init__(self, value):
        self.value = np.float32(value)

    def apply(self, blocks, institution, round):
        return {n: 2 * (v + self.value) for n, v in blocks.items()}

    def undo(self, sums, survivors, round):
        return {n: v / 2 - self.value for n, v in sums.items()}


def test_a_chain_is_undone_in_reverse():
    chain = (_Add(1), _Add(10))
    sent = apply_chain(chain, {"x": np.float32([3])}, "a", 1)
    assert sent["x"] == 2 * (2 * (3 + 1) + 10)
    assert undo_chain(chain, sent, {"x": ("a",)}, 1)["x"] == 3


def test_a_plans_chain_weighs_by_the_plans_fractions():
    plan = plan_of(tiny())
    (weigh,) = build_chain(plan)
    assert isinstance(weigh, Weigh)
    assert weigh.fractions == plan.fractions
