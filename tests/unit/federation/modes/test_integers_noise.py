"""The noise on secure sums of integers: what is charged, neither less nor more."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from fedfuse_ray.federation.messages.released import NOTHING_RELEASED, Released
from fedfuse_ray.federation.modes.grid import grid_of
from fedfuse_ray.federation.modes.integers import (
    gradient_sums,
    noisy_words,
    released_signal,
    unclipped_count,
)
from fedfuse_ray.federation.plan.terms import COUNT, COUNT_UNITS
from fedfuse_ray.models.initial import block_sizes
from fedfuse_ray.privacy.mechanisms.gaussian import gaussian_noise
from fedfuse_ray.privacy.mechanisms.integers import INTEGER_NOISE
from tests.support.privacy.secure_sums import (
    ADAPTIVE,
    CLIP,
    COARSE,
    FINE,
    ROUNDS,
    SIGMA,
    clipped_inputs,
    plan_on,
    secure_plan,
    silence,
    summed,
    true_sums,
)


def released_noise(plan, released=NOTHING_RELEASED):
    """Return the decoded sums of nothing but noise, over all rounds, by block."""
    zeros = {n: {b: 0 * v for b, v in blocks.items()} for n, blocks in clipped_inputs(plan).items()}
    rounds = [
        gradient_sums(summed(plan, zeros, round, released), grid_of(plan, round, released))
        for round in range(1, ROUNDS + 1)
    ]
    return {block: np.concatenate([decoded[block] for decoded in rounds]) for block in rounds[0]}


def noise_is(plan, expected, released=NOTHING_RELEASED, widened=1.0):
    """Whether every block's noise has the standard deviation that was charged: chi-square, 5 sigma.

    All of the owners are there, where K - t shares would do: sigma C sqrt(K / (K - t)).
    """
    for block, values in released_noise(plan, released).items():
        owners = len(plan.owners[block])
        std = widened * expected * math.sqrt(owners / plan.privacy.shares(block))
        if grid_of(plan, 1).is_coarse(block):  # rounding adds a twelfth of the squared step
            std *= math.sqrt(1 + grid_of(plan, 1).step(block) ** 2 / 12)
        if abs(np.mean((values / std) ** 2) - 1) > 5 * math.sqrt(2 / values.size):
            return False
    return True


@pytest.mark.parametrize("kind", ["fine", "coarse", "exact"])
def test_the_noise_on_the_sum_is_what_is_charged(kind):
    plan = plan_on(kind)
    assert noise_is(plan, SIGMA * CLIP, widened=1.01 if kind == "fine" else 1.0)


@pytest.mark.parametrize("kind", ["fine", "coarse"])
def test_noise_divided_by_the_root_of_fifteen_is_caught(kind, monkeypatch):
    plan = plan_on(kind)
    silence(monkeypatch, lambda size, std, draws: gaussian_noise(size, std / 15**0.5, draws))
    assert not noise_is(plan, SIGMA * CLIP, widened=1.01 if kind == "fine" else 1.0)


@pytest.mark.parametrize("kind", ["fine", "coarse"])
def test_one_block_without_noise_is_caught(kind, monkeypatch):
    plan = plan_on(kind)
    bare = block_sizes(plan.spec)["fusion"]
    silence(
        monkeypatch,
        lambda size, std, draws: gaussian_noise(size, 0.0 if size == bare else std, draws),
    )
    assert not noise_is(plan, SIGMA * CLIP, widened=1.01 if kind == "fine" else 1.0)


def test_a_schedule_scales_the_noise_of_its_round():
    factors = [1.0 + 0.5 * (index % 2) for index in range(ROUNDS)]
    plan = secure_plan(
        COARSE,
        "compression.rounding_step=0.01",
        f"privacy.noise_schedule={factors}",
    )
    mean_square = math.sqrt(np.mean(np.square(factors)))
    # Over an even number of rounds; the mixture's fourth moment is within the band of 5 sigma.
    assert noise_is(plan, SIGMA * CLIP * mean_square)
    assert not noise_is(plan, SIGMA * CLIP)


SPENDING = "privacy.noise_schedule=adaptive"


@pytest.mark.parametrize("codec", [FINE, COARSE])
def test_the_factor_that_was_broadcast_scales_the_noise_of_its_round(codec):
    plan = secure_plan(codec, SPENDING)
    for factor in (0.75, 1.5):
        released = Released(noise_factor=factor)
        (event,) = plan.privacy.events("med-01", ("fusion",), 1, factor)
        assert event.noise_multiplier == SIGMA * factor
        widened = 1.01 if codec == FINE else 1.0
        assert noise_is(plan, event.noise_multiplier * CLIP, released, widened)
        # Negative control: noise that the factor did not reach is not what is charged.
        assert not noise_is(plan, SIGMA * CLIP, released, widened)


@pytest.mark.parametrize("codec", [FINE, COARSE])
@pytest.mark.parametrize("scale", [0.0, 200.0])
def test_the_signal_is_told_from_the_noise_without_bias(codec, scale):
    plan = secure_plan(codec, SPENDING)
    owners, inputs = plan.owners, clipped_inputs(plan, scale * CLIP)
    released = Released(noise_factor=1.5)

    def seen(owners):
        rounds = range(1, ROUNDS + 1)
        sums = {round: summed(plan, inputs, round, released) for round in rounds}
        return [released_signal(sums[r], owners, grid_of(plan, r, released)) for r in rounds]

    signals = seen(owners)
    found = [signal.energy for signal in signals]
    truth = sum(
        (np.linalg.norm(v) / CLIP / grid_of(plan, 1).expected_batch(owners[b])) ** 2
        for b, v in true_sums(inputs).items()
    )
    error = np.std(found) / math.sqrt(ROUNDS)
    assert abs(np.mean(found) - truth) < 4 * error
    if not scale:
        assert 0.5 < np.std(found) / signals[0].error < 1.7  # of twelve rounds
    # Negative control: noise of owners that are not counted is taken for signal.
    fewer = {block: names[:1] for block, names in owners.items()}
    blind = [signal.energy for signal in seen(fewer)]
    assert abs(np.mean(blind) - truth) > 4 * error


@pytest.mark.parametrize("codec", [FINE, COARSE])
def test_adaptive_clipping_scales_noise_with_the_rounds_norm(codec):
    plan = secure_plan(codec, ADAPTIVE, "compression.rounding_step=0.01")
    gradient, _ = plan.privacy.adaptive_stds(SIGMA)
    for norm in (CLIP / 4, 2 * CLIP):
        released = Released(clip_norm=norm)
        # The fine grid stays, so what rounding adds does not shrink with the norm.
        added = 0.0 if codec == COARSE else 0.01 * CLIP
        assert noise_is(plan, gradient * (norm + added), released)
        assert not noise_is(plan, gradient * (norm + 0.1 * CLIP), released)


def test_a_count_carries_its_own_noise_and_is_decoded_in_records(monkeypatch):
    plan = secure_plan(COARSE, ADAPTIVE)
    released = Released(clip_norm=CLIP)

    def count_of(inputs, round):
        return unclipped_count(
            summed(plan, inputs, round, released), grid_of(plan, round, released)
        )

    zeros = {p.name: {COUNT: np.zeros(1, np.float32)} for p in plan.participants}
    counts = [count_of(zeros, round) for round in (1, 2, 3)]
    assert len(set(counts)) == 3
    draws = []
    count_only = lambda size, std, generator: draws.append(std) or np.zeros(size, np.int64)  # noqa: E731
    monkeypatch.setitem(INTEGER_NOISE, "gaussian", count_only)
    inputs = {p.name: {COUNT: np.array([3.5], np.float32)} for p in plan.participants}
    assert count_of(inputs, 1) == pytest.approx(10.5, abs=1e-3)
    shares = plan.privacy.shares(COUNT)
    _, std = plan.privacy.adaptive_stds(SIGMA)
    # The count is an integer before noise, so nothing is widened for rounding.
    assert draws == pytest.approx([std * COUNT_UNITS / math.sqrt(shares)] * 3, rel=1e-9)


def test_noise_shares_differ_between_institutions_rounds_and_blocks():
    coarse = plan_on("coarse")
    zeros, draws = np.zeros(224, np.float32), coarse.randomness

    def words_of(name, round):
        return noisy_words({"fusion": zeros}, name, grid_of(coarse, round), draws)["fusion"]

    drawn = [words_of(name, round) for name in ("med-01", "med-02") for round in (1, 2)]
    for one, other in itertools.combinations(drawn, 2):
        assert np.mean(one == other) < 0.5
    again = words_of("med-01", 1)
    np.testing.assert_array_equal(again, drawn[0])
