"""What rounding adds to the sensitivity of each clipping group, and of the count, has its noise.

The sensitivity is measured: two sums that differ by one record, so chosen that as many coordinates
as possible are rounded apart, go through the real path without noise. With the noise's real
standard deviation it gives the epsilon that holds, which must not exceed the one that is claimed.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from fedfuse_ray.federation.messages.released import NOTHING_RELEASED, Released
from fedfuse_ray.federation.modes import grid as grids
from fedfuse_ray.federation.modes.grid import grid_of
from fedfuse_ray.federation.modes.integers import noisy_words
from fedfuse_ray.federation.plan.terms import COUNT
from fedfuse_ray.models.initial import block_sizes
from fedfuse_ray.privacy.accounting.epsilon import epsilon
from fedfuse_ray.privacy.accounting.ledger import PrivacyEvent
from fedfuse_ray.privacy.mechanisms.integers import INTEGER_NOISE, IntegerScale, integer_scale
from fedfuse_ray.privacy.secure_aggregation import from_modular
from tests.support.federations import plan_of, tiny

EPSILON = 1.0
USUAL = (
    f"privacy.target_epsilon={EPSILON}",
    "compression.codec=fp32",
    "training.rounds=1",
    "privacy.tolerated_dropouts=0",
)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setitem(INTEGER_NOISE, "gaussian", lambda size, *_: np.zeros(size, np.int64))


def grouped(clip):
    groups = f"privacy.groups={{fusion: {{clip_norm: 1.0}}, rest: {{clip_norm: {clip}}}}}"
    return plan_of(tiny(*USUAL, groups, paradigm="fedfuse"))


def counting(clip):
    settings = (f"privacy.clip_norm={clip}", "privacy.adaptive_clipping.enabled=true")
    return plan_of(tiny(*USUAL, *settings, paradigm="fedfuse"))


def as_before(plan):
    """Give the plan the scale that it had: one for all groups, from their joint norm."""
    clip = math.hypot(*plan.terms.clip_norms.values())
    most = max(sum(own.values()) for own in plan.terms.coordinates.values())
    joint = integer_scale(clip, most)
    plan.terms.__dict__["scales"] = dict.fromkeys(
        plan.terms.clip_norms, IntegerScale(joint.scale, clip, most)
    )
    return plan


def worst_record(units, clip, size):
    """Return a sum and a record of norm C or a little less, in units of gradient.

    Each coordinate of the sum lies just below the middle between two integers, and the record moves
    it by a little more than a whole number of integers: it is rounded one further.
    """
    before, beyond = 0.4995, 0.002
    mean_square = (units * clip) ** 2 / size
    low = max(0, math.floor(math.sqrt(mean_square)) - 1)
    ladder = [step + beyond for step in (low, low + 1)]
    share = (mean_square - ladder[0] ** 2) / (ladder[1] ** 2 - ladder[0] ** 2)
    higher = math.floor(size * min(1.0, max(0.0, share)))
    moves = np.full(size, ladder[0])
    moves[:higher] = ladder[1]
    assert np.linalg.norm(moves) <= units * clip * (1 + 1e-6)
    return np.full(size, before) / units, moves / units


def integers_of(sums, name, grid):
    words = noisy_words(sums, name, grid, draws=DRAWS)
    return {block: from_modular(w, grid.bits(block)) for block, w in words.items()}


DRAWS = plan_of(tiny(paradigm="fedfuse")).randomness


def gradients_cost(plan, name, released=NOTHING_RELEASED):
    """Return the sum over groups of (sensitivity / noise)^2 of one institution's record."""
    grid, terms = grid_of(plan, 1, released), plan.terms
    sizes, own = block_sizes(plan.spec), plan.blocks_of(plan.by_name[name])
    clips = terms.clip_norms if released.clip_norm is None else {"joint": released.clip_norm}
    cost = 0.0
    for group, clip in clips.items():
        blocks = [b for b in own if terms.groups(own)[b] == group]
        if not blocks:
            continue
        units = {grid.units(b) for b in blocks}
        stds = {grid.std(b) for b in blocks}
        assert len(units) == len(stds) == 1
        (unit,), (std,) = units, stds
        base, record = worst_record(unit, clip, sum(sizes[b] for b in blocks))
        cuts = np.cumsum([sizes[b] for b in blocks])[:-1]

        def cut(vector, blocks=blocks, cuts=cuts):
            parts = np.split(vector.astype(np.float32), cuts)
            return dict(zip(blocks, parts, strict=True))

        without = integers_of(cut(base), name, grid)
        with_it = integers_of(cut(base + record), name, grid)
        moved = math.hypot(*(np.linalg.norm(with_it[b] - without[b]) for b in blocks))
        cost += (moved / (unit * std)) ** 2
    return cost


def count_cost(plan, name, released):
    """Return the same of the count, over all counts that the institution's records can have."""
    grid = grid_of(plan, 1, released)
    halves = np.arange(-plan.by_name[name].specimens, plan.by_name[name].specimens + 1) / 2

    def counted(value):
        return int(integers_of({COUNT: np.array([value], np.float32)}, name, grid)[COUNT][0])

    integers = [counted(value) for value in halves]
    moved = max(abs(b - a) for a, b in itertools.pairwise(integers))
    return (moved / (grid.units(COUNT) * grid.std(COUNT))) ** 2


def epsilon_of(plan, cost):
    """Return the epsilon of one Gaussian release of that many (sensitivity / noise)^2."""
    event = PrivacyEvent(
        round=1,
        institution="med-01",
        blocks=(),
        mechanism="gaussian",
        noise_multiplier=1 / math.sqrt(cost),
        sampling_rate=1.0,
        count=1,
        unit="record",
    )
    return epsilon([event], plan.terms.config.delta)


def claimed(plan):
    """Return the epsilon that the ledger gives; the budget is spent all but completely."""
    events = plan.terms.events("med-01", (), 1)
    value = epsilon(events, plan.terms.config.delta)
    assert value == pytest.approx(EPSILON, rel=1e-3)
    return value


def holds(plan, costs):
    return all(epsilon_of(plan, cost) <= claimed(plan) * (1 + 1e-6) for cost in costs)


@pytest.mark.parametrize(("clip", "was"), [(0.1, 1.02), (0.01, 1.5), (0.003, 2.5)])
def test_a_small_group_has_the_noise_for_what_rounding_adds_to_it(clip, was):
    plan = grouped(clip)
    assert holds(plan, [gradients_cost(plan, name) for name in plan.by_name])
    # Negative control: one scale from all groups' norms.
    before = as_before(grouped(clip))
    costs = [gradients_cost(before, name) for name in before.by_name]
    assert not holds(before, costs)
    assert max(epsilon_of(before, cost) for cost in costs) > was


def test_the_worst_record_is_nearly_as_bad_as_is_accounted():
    """The measure can tell: it reaches what rounding adds at most, but for a thousandth."""
    plan = grouped(0.01)
    for name in plan.by_name:
        joint = 1 / plan.terms.common_sigma(1) ** 2
        assert gradients_cost(plan, name) > 0.9 * joint * 0.5


@pytest.mark.parametrize("clip", [1e4, 1e5])
@pytest.mark.parametrize("growth", [0.25, 1.0, 4.0])
def test_the_count_keeps_the_claim_at_any_clipping_norm(monkeypatch, clip, growth):
    plan, released = counting(clip), Released(clip_norm=growth * clip)

    def costs(plan):
        return [
            gradients_cost(plan, name, released) + count_cost(plan, name, released)
            for name in plan.by_name
        ]

    assert holds(plan, costs(plan))
    # Negative control: the count on the gradients' grid, whose steps are wider than its own.
    monkeypatch.setattr(grids, "COUNT_UNITS", plan.terms.scales["joint"].scale)
    assert not holds(plan, costs(plan))


@pytest.mark.parametrize("clip", [1e-3, 0.5, 1e5])
def test_the_count_is_an_integer_before_noise_and_moves_by_half_a_record(clip):
    plan, released = counting(clip), Released(clip_norm=clip)
    grid = grid_of(plan, 1, released)
    for records in range(40):
        for within in range(records + 1):
            count = within - records / 2
            sums = {COUNT: np.array([count], np.float32)}
            assert integers_of(sums, "med-01", grid)[COUNT][0] == count * grids.COUNT_UNITS
    _, std = plan.terms.adaptive_stds(plan.terms.common_sigma(1))
    assert grid.std(COUNT) == std
    assert count_cost(plan, "med-01", released) == pytest.approx((0.5 / std) ** 2, rel=1e-12)
