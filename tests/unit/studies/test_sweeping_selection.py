"""What choosing costs: against published numbers, a direct simulation, and simple limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dp_accounting import gaussian_mechanism

from fedfuse_ray import rng
from fedfuse_ray.privacy.accounting.calibration import calibrate_noise_multiplier
from fedfuse_ray.privacy.accounting.ledger import Ledger, PrivacyEvent
from fedfuse_ray.studies.sweeping.number import draw_number, log_inverse_gamma
from fedfuse_ray.studies.sweeping.selection import best_of_curve, selection_cost, told

DELTA = 1e-5


def ledger(sigma, *, rate=1.0, count=40, names=("a",), **more):
    return Ledger(
        tuple(PrivacyEvent(1, name, (), "gaussian", sigma, rate, count, **more) for name in names)
    )


@pytest.fixture(scope="module")
def one():
    return ledger(calibrate_noise_multiplier(1.0, DELTA, 1.0, 40))


@pytest.mark.parametrize(("runs", "expected"), [(10, 1.92), (30, 2.11), (100, 2.29)])
def test_the_logarithmic_number(one, runs, expected):
    cost = selection_cost([one] * runs, DELTA, "logarithmic", runs)
    assert cost.logarithmic == pytest.approx(expected, abs=0.01)
    assert cost.charged == cost.logarithmic < cost.geometric < cost.fixed


def test_a_fixed_number_is_the_composition_of_all(one):
    cost = selection_cost([one] * 10, DELTA)
    sigma = one.events[0].noise_multiplier / math.sqrt(400)
    assert cost.fixed == pytest.approx(gaussian_mechanism.get_epsilon_gaussian(sigma, DELTA))
    assert cost.charged == cost.fixed
    assert cost.largest_alone == pytest.approx(1.0, abs=1e-3)


def test_one_run_costs_its_own_epsilon(one):
    cost = selection_cost([one], DELTA)
    assert cost.fixed == cost.logarithmic == cost.geometric == cost.largest_alone


def test_a_sampled_run_is_composed_from_above():
    sigma = calibrate_noise_multiplier(1.0, DELTA, 0.05, 400)
    few = selection_cost([ledger(sigma, rate=0.05, count=400)] * 4, DELTA)
    together = selection_cost([ledger(sigma, rate=0.05, count=1600)], DELTA)
    assert together.fixed <= few.fixed < 1.15 * together.fixed


def test_a_discrete_run_is_charged_too():
    event = PrivacyEvent(1, "a", (), "skellam", 3.0, 1.0, 4, rho=0.05, xi=0.001)
    cost = selection_cost([Ledger((event,))] * 5, DELTA)
    assert cost.largest_alone < cost.logarithmic < cost.fixed < math.inf


def test_the_worst_institution_and_the_worst_point_decide(one):
    weak = ledger(one.events[0].noise_multiplier / 2, names=("b",))
    both = Ledger((*one.events, *weak.events))
    cost = selection_cost([both, both], DELTA)
    alone = selection_cost([weak, weak], DELTA)
    assert cost == alone
    mixed = selection_cost([one, ledger(one.events[0].noise_multiplier / 2)], DELTA, "geometric", 2)
    assert (
        mixed.geometric
        == selection_cost([ledger(weak.events[0].noise_multiplier)] * 2, DELTA).geometric
    )


@pytest.mark.parametrize(("eta", "number"), [(1.0, "geometric"), (0.0, "logarithmic")])
def test_numbers_are_drawn_with_their_mean(eta, number):
    drawn = [draw_number(number, 12, rng.generator(seed, "draw")) for seed in range(3000)]
    assert min(drawn) >= 1
    assert np.mean(drawn) == pytest.approx(12, rel=0.1)
    gamma = math.exp(-log_inverse_gamma(12, eta))
    expected = 1 / gamma if eta else (1 / gamma - 1) / -math.log(gamma)
    assert expected == pytest.approx(12)
    assert draw_number("fixed", 12, rng.generator(0, "draw")) == 12


def test_the_bound_holds_for_randomized_response_and_fails_without_its_terms():
    """Exact divergence of the best of a geometric number of coin flips, against the bound."""
    p, mean = 0.6, 8.0
    orders = np.array([1.5, 2.0, 4.0, 8.0, 16.0])
    alone = np.array(
        [math.log(p**a * (1 - p) ** (1 - a) + (1 - p) ** a * p ** (1 - a)) for a in orders]
    )
    curve = alone / (orders - 1)
    gamma = 1 / mean

    def best_is_one(q):
        # The best is 0 only when all K are: E (1 - q)^K, with K geometric on 1, 2, ...
        zeros = gamma * (1 - q) / (1 - (1 - gamma) * (1 - q))
        return 1 - zeros

    x, y = best_is_one(p), best_is_one(1 - p)
    exact = np.array(
        [
            max(
                math.log(u**a * v ** (1 - a) + (1 - u) ** a * (1 - v) ** (1 - a)) / (a - 1)
                for u, v in ((x, y), (y, x))
            )
            for a in orders
        ]
    )
    bound = best_of_curve(curve, orders, mean, 1.0)
    assert (exact <= bound).all()
    assert (exact > curve).any()


def test_it_is_told_in_words(one):
    assert "One private run" in told(selection_cost([one], DELTA))
    text = told(selection_cost([one] * 10, DELTA))
    assert "3.62" in text
    assert "search.number" in text
    # One loud run among quiet ones: all together cost hardly more than it, a random choice does.
    apart = [one, *[ledger(1e5)] * 3]
    assert "search.number" not in told(selection_cost(apart, DELTA))
    assert "logarithmic" in told(selection_cost([one] * 10, DELTA, "logarithmic", 10))
