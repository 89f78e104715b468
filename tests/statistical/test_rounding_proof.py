"""The theorem of docs/proofs.md, compared with exact distributions on small lattices.

p is the law of the sum of integers that were rounded apart: interval probabilities of the normal
distribution, convolved. q is the Gaussian of all shares, rounded afterwards: convolved with the
B-spline of as many boxes, at the integers. Both are sums of positive numbers, so they have twelve
digits far into the tails. Nothing here is random.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from scipy.interpolate import BSpline
from scipy.special import ndtr

from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.modes.grid import grid_of
from fedfuse_ray.privacy.mechanisms.rounding import (
    RIPPLE,
    coarsest_step,
    ripple,
    smoothing_error,
)
from tests.support.privacy.divergences import gaussian_hockey_stick, hockey_stick
from tests.support.privacy.secure_sums import ADAPTIVE, COARSE, FINE, secure_plan

SHARES = (2, 3, 5, 14)
ALIGNED, SPREAD, APART = "aligned", "spread", "apart"
DIGITS = 1e-12


def centres(shares, how):
    """Return where the institutions' own values lie between grid points."""
    spread = np.linspace(-0.5, 0.5, shares, endpoint=False) + 0.03
    return {ALIGNED: np.zeros(shares), SPREAD: spread, APART: np.full(shares, 0.5)}[how]


def rounded_apart(places, deviation, reach):
    """Return p at -reach..reach."""
    sums = np.ones(1)
    for place in places:
        edges = (np.arange(-reach, reach + 2) - 0.5 - place) / deviation
        low, high = edges[:-1], edges[1:]
        mirrored = low > 0  # where differences of the lower tail are exact
        sums = np.convolve(
            sums, ndtr(np.where(mirrored, -low, high)) - ndtr(np.where(mirrored, -high, low))
        )
    middle = len(sums) // 2
    return sums[middle - reach : middle + reach + 1]


def rounded_afterwards(places, deviation, reach):
    """Return q at -reach..reach."""
    shares = len(places)
    box = BSpline.basis_element(np.arange(shares + 1), extrapolate=False)
    nodes, weights = np.polynomial.legendre.leggauss(24)
    u = (np.arange(shares)[:, None] + (nodes + 1) / 2).ravel()
    heights = np.tile(weights / 2, shares) * box(u)
    std = deviation * math.sqrt(shares)
    gaps = (np.arange(-reach, reach + 1)[:, None] - np.sum(places) - (u - shares / 2)) / std
    return (np.exp(-gaps * gaps / 2) @ heights) / (std * math.sqrt(2 * math.pi))


@functools.cache
def laws(shares, deviation, how, shift=0.0):
    """Return p and q, out to eight standard deviations; one institution's value is shifted."""
    places = centres(shares, how).copy()
    places[0] += shift
    reach = math.ceil(8 * deviation * math.sqrt(shares) + abs(shift)) + shares
    return rounded_apart(places, deviation, reach), rounded_afterwards(places, deviation, reach)


def farthest(shares, deviation):
    """Return the largest |p / q - 1|."""
    return max(
        float(np.abs(np.divide(*laws(shares, deviation, how)) - 1.0).max())
        for how in (ALIGNED, SPREAD, APART)
    )


@pytest.mark.parametrize("deviation", [0.7, 0.85, 1.0, 1.2, 1.5])
@pytest.mark.parametrize("shares", SHARES)
def test_the_laws_differ_by_no_more_than_the_theorem_says(shares, deviation):
    assert farthest(shares, deviation) <= smoothing_error(shares, deviation) + DIGITS


@pytest.mark.parametrize("shares", SHARES)
def test_the_bound_is_not_idle(shares):
    """At one standard deviation a step it is met up to a factor that the boxes' averaging gives."""
    found, bound = farthest(shares, 1.0), smoothing_error(shares, 1.0)
    assert bound / 60 < found <= bound


def theta_series(shares, deviation):
    """Return eta_0 of the proof, the sum over the dual lattice, by another way: one integral.

    Summing the Gaussian over Z^n along the lines t (1, .., 1) gives theta(t)^n, and the integral
    over t splits each vector into its mean and its projection.
    """
    a = 2 * math.pi**2 * deviation**2
    nodes, weights = np.polynomial.legendre.leggauss(400)
    t = (nodes + 1) / 4
    k = np.concatenate([np.arange(1, 12), -np.arange(1, 12)])[:, None]
    others = np.exp(-a * (k * k - 2 * k * t)).sum(0)
    gained = np.exp(-a * shares * t * t) * np.expm1(shares * np.log1p(others))
    whole = math.sqrt(a * shares / math.pi) * 2 * float(gained @ weights) / 4
    return whole - math.erfc(math.sqrt(a * shares) / 2)


@pytest.mark.parametrize("deviation", [0.7, 1.0, 1.3, 1.6])
@pytest.mark.parametrize("shares", [*SHARES, 100])
def test_the_sum_over_the_dual_lattice_is_bounded_closely(shares, deviation):
    exact = theta_series(shares, deviation)
    assert exact * (1 - 1e-9) <= smoothing_error(shares, deviation) <= 1.5 * exact


def test_rounding_afterwards_is_a_randomised_map_of_the_gaussian_alone():
    for shares in SHARES:
        box = BSpline.basis_element(np.arange(shares + 1) - shares / 2, extrapolate=False)
        for y in (0.0, 0.3, -7.77):
            chances = np.nan_to_num(box(np.arange(-30, 31) - y))
            assert chances.min() >= 0
            assert chances.sum() == pytest.approx(1.0, abs=1e-12)
        assert laws(shares, 1.0, SPREAD)[1].sum() == pytest.approx(1.0, abs=1e-12)


def test_one_share_is_rounded_afterwards_whatever_the_grid():
    assert smoothing_error(1, 0.01) == 0.0
    assert coarsest_step(1, 1e-12) == math.inf
    for deviation in (0.3, 1.0):
        assert farthest(1, deviation) <= DIGITS


def excess(shares, deviation, multiplier):
    """Return the largest ratio of a divergence of the sums to what the theorem allows."""
    gamma = ripple(shares, deviation)
    gamma = gamma if gamma < 1.0 else RIPPLE  # where the theorem says nothing, what is charged
    shift = deviation * math.sqrt(shares) / multiplier
    worst = 0.0
    for how in (ALIGNED, SPREAD, APART):
        one = rounded_apart(
            centres(shares, how),
            deviation,
            reach := math.ceil(10 * deviation * math.sqrt(shares) + shift) + shares,
        )
        moved = centres(shares, how)
        moved[0] += shift
        other = rounded_apart(moved, deviation, reach)
        for epsilon in np.array([0.05, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0]) / multiplier:
            allowed = math.exp(gamma) * gaussian_hockey_stick(multiplier, epsilon)
            found = max(
                hockey_stick(a, b, epsilon + 2 * gamma) for a, b in ((one, other), (other, one))
            )
            worst = max(worst, found / allowed)
    return worst


@pytest.mark.parametrize("multiplier", [0.5, 1.0, 5.0])
@pytest.mark.parametrize("shares", SHARES)
def test_divergences_stay_within_what_is_charged(shares, multiplier):
    deviation = 1.0 / coarsest_step(shares, 1e-9)
    assert excess(shares, deviation, multiplier) <= 1.0 + 1e-9


@pytest.mark.parametrize(("shares", "step"), [(2, 3.0), (3, 3.0), (5, 3.0), (14, 6.0)])
def test_a_coarser_grid_is_caught(shares, step):
    """Of fourteen shares the roundings alone are so much noise that it takes a coarser one."""
    assert farthest(shares, 1 / 3) > 100 * RIPPLE
    assert excess(shares, 1 / step, 1.0) > 1.5


@pytest.mark.parametrize("shares", [1, *SHARES, 40, 1000])
@pytest.mark.parametrize("allowed", [1e-4, 1e-10, 1e-15])
def test_the_coarsest_step_uses_up_what_is_allowed(shares, allowed):
    step = coarsest_step(shares, allowed)
    if shares > 1:
        assert 0.5 * allowed < ripple(shares, 1.0 / step) <= allowed
        assert ripple(shares, 0.99 / step) > allowed
    with pytest.raises(InputError, match="ripple"):
        coarsest_step(shares, 0.0)


def spent(plan, step_of):
    """Return gamma of the whole run for the institution that has most of it."""
    grid, coordinates = grid_of(plan, 1), plan.privacy.coordinates
    rounds = plan.experiment.training.rounds
    return max(
        rounds * sum(d * ripple(plan.privacy.shares(b), 1.0 / step_of(grid, b)) for b, d in own)
        for own in (blocks.items() for blocks in coordinates.values())
    )


@pytest.mark.parametrize("codec", ["modint", "subspace", "countsketch"])
def test_a_plans_grids_spend_no_more_than_the_ledger_is_charged(codec):
    plan = secure_plan(f"compression.codec={codec}")
    rounds = range(1, plan.experiment.training.rounds + 1)
    charged = sum(plan.privacy.events("med-01", (), r)[0].ripple for r in rounds)
    assert charged == pytest.approx(RIPPLE)
    assert spent(plan, lambda grid, block: grid.step(block)) <= RIPPLE
    # Negative control: steps of one standard deviation, which `rounding_step` alone would allow.
    assert spent(plan, lambda *_: 1.0) > 10 * RIPPLE


def test_a_finer_grid_can_be_asked_for_and_a_coarser_one_cannot():
    fine, coarse = (secure_plan(COARSE, f"compression.rounding_step={s}") for s in (0.1, 1.0))
    for block in coarse.owners:
        assert grid_of(fine, 1).step(block) == 0.1
        shares = coarse.privacy.shares(block)
        proved = coarsest_step(shares, coarse.privacy.coordinate_ripple)
        assert grid_of(coarse, 1).step(block) == min(1.0, proved)


@pytest.mark.parametrize("settings", [(FINE,), (FINE, ADAPTIVE), (COARSE, ADAPTIVE)])
def test_noise_too_weak_for_a_fine_grid_is_refused(settings):
    assert secure_plan(*settings).privacy.round_ripple > 0
    with pytest.raises(InputError, match=r"privacy\.noise_multiplier.*add noise"):
        secure_plan(*settings, "privacy.noise_multiplier=1e-4")
