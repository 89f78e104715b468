"""The adaptive policy's choice among options: against brute force, and at its edges."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedfuse_ray.compression.codec import Setting
from fedfuse_ray.compression.policy import Option, choose_for_budget, choose_for_error, lower_hull

ROUNDOFF = 1e-9


def option(bits, nbytes, error):
    return Option(Setting(bits=bits), nbytes, error)


def ladder(*steps):
    """Return options from (bytes, error); their bits number them from 1."""
    return [option(bits, *step) for bits, step in enumerate(steps, 1)]


def bits_of(chosen):
    return {block: setting.bits for block, setting in chosen.items()}


ERRORS = st.integers(0, 40).map(lambda n: n / 40)
LADDERS = st.lists(st.tuples(st.integers(1, 60), ERRORS), min_size=1, max_size=5)


@st.composite
def instances(draw):
    """Return the options and energies of up to three blocks."""
    ladders = draw(st.lists(LADDERS, min_size=1, max_size=3))
    options = {f"block-{i}": ladder(*steps) for i, steps in enumerate(ladders)}
    energies = {name: draw(st.sampled_from([0.0, 0.1, 1.0, 7.0])) for name in options}
    return options, energies


def cost_of(options, chosen):
    return sum(options[name][setting.bits - 1].nbytes for name, setting in chosen.items())


def loss_of(options, energies, chosen):
    return sum(energies[n] * options[n][s.bits - 1].error for n, s in chosen.items())


def cheapest(options):
    return sum(min(o.nbytes for o in offered) for offered in options.values())


def brute_force(options, energies, budget):
    """Return the least total squared error of any combination within the budget."""
    names = list(options)
    losses = [
        sum(energies[n] * o.error for n, o in zip(names, combination, strict=True))
        for combination in itertools.product(*options.values())
        if sum(o.nbytes for o in combination) <= budget
    ]
    return min(losses)


def largest_step(options, energies):
    """Return what one block's last step can be worth: the greedy choice's distance from the best.

    A step is from one option of the hull to the next.
    """
    return max(
        (
            energies[name] * (worse.error - better.error)
            for name, offered in options.items()
            for worse, better in itertools.pairwise(lower_hull(offered))
        ),
        default=0.0,
    )


def test_the_cheapest_option_within_the_target_is_chosen():
    options = {"a": ladder((10, 0.5), (30, 0.01), (20, 0.02)), "b": ladder((5, 0.001), (9, 0.0))}
    assert bits_of(choose_for_error(options, 0.05)) == {"a": 3, "b": 1}
    assert bits_of(choose_for_error(options, 0.01)) == {"a": 2, "b": 1}
    assert bits_of(choose_for_error(options, 0.0005)) == {"a": 2, "b": 2}


def test_an_error_at_the_target_is_within_it():
    assert bits_of(choose_for_error({"a": ladder((1, 0.2), (2, 0.1))}, 0.2)) == {"a": 1}


def test_out_of_reach_the_most_exact_option_is_chosen_and_of_equals_the_cheapest():
    options = {"a": ladder((40, 0.3), (20, 0.3), (10, 0.9))}
    assert bits_of(choose_for_error(options, 0.1)) == {"a": 2}


def test_of_options_with_one_price_the_more_exact_is_chosen():
    assert bits_of(choose_for_error({"a": ladder((8, 0.09), (8, 0.01))}, 0.1)) == {"a": 2}


@given(instance=instances(), target=ERRORS)
def test_an_error_target_is_met_wherever_it_can_be(instance, target):
    options, _ = instance
    for name, setting in choose_for_error(options, target).items():
        chosen = options[name][setting.bits - 1]
        good = [o for o in options[name] if o.error <= target]
        if good:
            assert chosen.error <= target
            assert chosen.nbytes == min(o.nbytes for o in good)
        else:
            assert chosen.error == min(o.error for o in options[name])


def test_nothing_to_choose_from_is_nothing_chosen():
    assert choose_for_error({}, 0.1) == {}
    assert choose_for_budget({}, {}, 100) == {}


def test_a_budget_goes_where_a_byte_lowers_the_error_most():
    steps = ((10, 1.0), (20, 0.1), (40, 0.0))
    options = {"large": ladder(*steps), "small": ladder(*steps)}
    energies = {"large": 100.0, "small": 1.0}
    expected = {20: (1, 1), 30: (2, 1), 50: (3, 1), 60: (3, 2), 80: (3, 3), 79: (3, 2), 19: (1, 1)}
    for budget, (large, small) in expected.items():
        chosen = bits_of(choose_for_budget(options, energies, budget))
        assert (budget, chosen) == (budget, {"large": large, "small": small})


def test_an_option_above_the_hull_is_passed_over():
    # The middle one saves little of the way to the last: its bytes are better spent elsewhere.
    options = {"a": ladder((10, 1.0), (20, 0.95), (30, 0.0))}
    assert bits_of(choose_for_budget(options, {"a": 1.0}, 29)) == {"a": 1}
    assert bits_of(choose_for_budget(options, {"a": 1.0}, 30)) == {"a": 3}


@settings(max_examples=200, deadline=None)
@given(instance=instances(), budget=st.integers(1, 200))
def test_a_budget_is_kept_unless_even_the_cheapest_exceeds_it(instance, budget):
    options, energies = instance
    chosen = choose_for_budget(options, energies, budget)
    assert chosen.keys() == options.keys()
    assert cost_of(options, chosen) <= max(budget, cheapest(options))


@settings(max_examples=200, deadline=None)
@given(instance=instances(), budget=st.integers(1, 200))
def test_the_choice_is_the_best_up_to_one_blocks_last_step(instance, budget):
    options, energies = instance
    budget = max(budget, cheapest(options))
    loss = loss_of(options, energies, choose_for_budget(options, energies, budget))
    best = brute_force(options, energies, budget)
    assert best - ROUNDOFF <= loss <= best + largest_step(options, energies) + ROUNDOFF


@settings(max_examples=100, deadline=None)
@given(instance=instances())
def test_a_budget_for_just_the_steepest_steps_is_spent_on_them(instance):
    """There the greedy choice is the optimum, with nothing left over."""
    options, energies = instance
    for price in prices_of_the_steepest(options, energies):
        chosen = choose_for_budget(options, energies, price)
        assert cost_of(options, chosen) == price
        loss = loss_of(options, energies, chosen)
        assert loss == pytest.approx(brute_force(options, energies, price), abs=ROUNDOFF)


def prices_of_the_steepest(options, energies):
    """Return what the first steps along the hulls cost together, for every number of them."""
    price = sum(lower_hull(offered)[0].nbytes for offered in options.values())
    steps = []
    for name, offered in options.items():
        for index, (worse, better) in enumerate(itertools.pairwise(lower_hull(offered))):
            extra = better.nbytes - worse.nbytes
            steps.append(
                (-energies[name] * (worse.error - better.error) / extra, name, index, extra)
            )
    return itertools.accumulate((extra for *_, extra in sorted(steps)), initial=price)


@settings(max_examples=200, deadline=None)
@given(instance=instances(), budget=st.integers(1, 150), more=st.integers(1, 80))
def test_more_bytes_never_leave_a_larger_error(instance, budget, more):
    options, energies = instance
    losses = [
        loss_of(options, energies, choose_for_budget(options, energies, bytes))
        for bytes in (budget, budget + more)
    ]
    assert losses[1] <= losses[0] + ROUNDOFF


def test_the_lower_hull_of_known_points():
    options = ladder((10, 1.0), (20, 0.95), (30, 0.0), (30, 0.4), (40, 0.0), (5, 3.0))
    assert [(o.nbytes, o.error) for o in lower_hull(options)] == [(5, 3.0), (10, 1.0), (30, 0.0)]


@given(steps=LADDERS)
def test_a_lower_hull_is_convex_and_has_no_option_below_it(steps):
    options = ladder(*steps)
    hull = lower_hull(options)
    assert set(hull) <= set(options)
    assert hull[0].nbytes == min(o.nbytes for o in options)
    assert hull[-1].error == min(o.error for o in options)
    slopes = [(b.error - a.error) / (b.nbytes - a.nbytes) for a, b in itertools.pairwise(hull)]
    assert all(slope < 0 for slope in slopes)
    assert all(one < other for one, other in itertools.pairwise(slopes))
    for o in options:
        for a, b in itertools.pairwise(hull):
            if a.nbytes <= o.nbytes <= b.nbytes:
                line = a.error + (o.nbytes - a.nbytes) * (b.error - a.error) / (b.nbytes - a.nbytes)
                assert o.error >= line - ROUNDOFF
