"""Whether rounding a noisy sum to the coarse grid gives more away than the Gaussian accounted.

The model, in grid steps. Institution j holds the differing record and sends round(x + n), every
other honest owner of the block sends round(x_i + n_i); shares have a standard deviation of
1 / rounding_step, and the server learns S, the sum of K - t of them. What is done with S later, the
modulus included, is post-processing. The distribution of S on the integers is computed, not
sampled: interval probabilities of the normal distribution, convolved. Nothing here is random.

What is bounded, for x against x + shift and both directions of neighbouring:

- The hockey-stick divergence of one coordinate at seven values of epsilon, for shifts from 1/20 to
  2 standard deviations of the sum, every phase of x on a grid of sixteenths, and four choices of
  the others' fractions, is at most 1.01 times that of the Gaussian of the shares alone (which has
  standard deviation sqrt(K - t) / rounding_step). For the largest rounding step that the config
  allows, 1, it is below it: rounding only adds noise.
- So is the Renyi divergence at orders 2, 8 and 32, also for shifts of 1/1000 standard deviation.
  Renyi divergences of independent coordinates add up, and so do the squared shifts which the
  Gaussian's are proportional to; the bound of a single coordinate for every size of shift is
  therefore one for any direction of the shift in any number of dimensions, and for any number of
  rounds.
- The hockey-stick divergence does not add up, so it is computed for products too: a shift of one
  length that lies in one coordinate, in a few unequal ones, or evenly in up to 64.

The proof is in docs/proofs.md, and asks for a finer grid than is needed here: it does not count the
noise that rounding adds. These are measurements of what is really given away.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from scipy.special import ndtr

from tests.support.privacy.divergences import gaussian_hockey_stick, hockey_stick

ALLOWED = 1.0  # the largest rounding_step of the config
SLACK = 1.01
SHARES = (2, 4, 14)
MULTIPLIERS = (0.5, 1.0, 2.0, 5.0, 20.0)
ORDERS = (2, 8, 32)
QUANTILES = (0.05, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0)
PHASES = np.arange(16) / 16


def others_fractions(shares):
    """Return choices of x_i for the owners besides j."""
    rest = shares - 1
    return [np.full(rest, f) for f in (0.0, 0.25, 0.5)] + [np.linspace(-0.5, 0.5, rest)]


def share_pmf(std, mean, reach):
    """Return the probabilities of round(mean + n) at -reach..reach, exact far into both tails."""
    edges = (np.arange(-reach, reach + 2) - 0.5 - mean) / std
    low, high = edges[:-1], edges[1:]
    # The upper tail's intervals are taken at their mirror images, where differences are exact.
    mirrored = low > 0
    return ndtr(np.where(mirrored, -low, high)) - ndtr(np.where(mirrored, -high, low))


def released(step, shares, shift, phase, fractions, reach):
    """Return the probabilities of S for x = phase and for x = phase + shift."""
    std = 1 / step
    rest = functools.reduce(np.convolve, [share_pmf(std, f, reach) for f in fractions], np.ones(1))
    return tuple(np.convolve(rest, share_pmf(std, x, reach)) for x in (phase, phase + shift))


def renyi(one, other, order):
    kept = (one > 1e-300) & (other > 1e-300)
    terms = order * np.log(one[kept]) - (order - 1) * np.log(other[kept])
    return float(terms.max() + np.log(np.exp(terms - terms.max()).sum())) / (order - 1)


def cases(step, shares, multipliers, phases=PHASES):
    """Yield the multiplier, and S with and without the record, for all of phases and fractions.

    The range covers what the highest order weighs: it looks order / multiplier standard
    deviations away.
    """
    spread = math.sqrt(shares) / step
    for multiplier in multipliers:
        shift = spread / multiplier
        reach = math.ceil((max(orders_for(multiplier)) / multiplier + 10) * spread + shift) + 2
        for fractions in others_fractions(shares):
            for phase in phases:
                yield multiplier, released(step, shares, shift, phase, fractions, reach)


def orders_for(multiplier):
    """Return the orders whose terms stay within double precision."""
    return [order for order in ORDERS if order / multiplier <= 26]


def worst_hockey_stick(step, shares):
    """Return the largest ratio to the Gaussian's."""
    return max(
        hockey_stick(a, b, quantile / multiplier)
        / gaussian_hockey_stick(multiplier, quantile / multiplier)
        for multiplier, (one, other) in cases(step, shares, MULTIPLIERS)
        for a, b in ((one, other), (other, one))
        for quantile in QUANTILES
    )


def worst_renyi(step, shares):
    """Return the largest ratio to the Gaussian's, order / (2 multiplier^2)."""
    return max(
        renyi(a, b, order) * 2 * multiplier**2 / order
        for multiplier, (one, other) in cases(step, shares, (*MULTIPLIERS, 1000.0), PHASES[::2])
        for a, b in ((one, other), (other, one))
        for order in orders_for(multiplier)
    )


@pytest.mark.parametrize("shares", SHARES)
def test_one_coordinate_gives_no_more_away_than_the_gaussian(shares):
    assert worst_hockey_stick(ALLOWED, shares) <= SLACK


@pytest.mark.parametrize("shares", SHARES)
def test_no_order_sees_more_than_of_the_gaussian(shares):
    assert worst_renyi(ALLOWED, shares) <= SLACK


@pytest.mark.parametrize("shares", SHARES)
def test_a_grid_four_times_as_coarse_is_caught(shares):
    assert worst_hockey_stick(4.0, shares) > 50
    assert worst_renyi(4.0, shares) > 1.2


def test_a_single_share_is_the_gaussian_rounded_afterwards_whatever_the_grid():
    # Without other shares rounding is post-processing: the check must not raise a false alarm.
    for step in (ALLOWED, 4.0):
        assert worst_hockey_stick(step, 1) <= 1 + 1e-9
        assert worst_renyi(step, 1) <= 1 + 1e-9


def test_half_the_noise_is_caught():
    """A planted fault: every share has 1/sqrt(2) of its standard deviation."""
    shift = 2.0  # of four whole shares this is a multiplier of 1
    one, other = released(math.sqrt(2) * ALLOWED, 4, shift, 0.3, [0.0] * 3, 60)
    assert hockey_stick(one, other, 1.0) > 1.3 * gaussian_hockey_stick(1.0, 1.0)
    assert renyi(one, other, 8) > 1.3 * 8 / 2


@pytest.mark.parametrize("shares", SHARES)
def test_own_noise_smooths_the_others_lattice_up_to_a_known_ripple(shares):
    """S is round(x + n + R), and n + R has a density; how far is it from one without a lattice?

    Given y = n + R, R is spread over the lattice with variance (m - 1) / m of a share's, and it is
    this variance, not the share's own, that the ripple 2 exp(-2 pi^2 variance) falls with.
    """
    std, reach = 1 / ALLOWED, 40
    y = np.linspace(0, 3 * std * math.sqrt(shares), 301)

    def density(offset):
        """Return that of n + R, had the last of the others' grids been moved by `offset`."""
        means = [0.0] * (shares - 2) + [-offset]
        others = functools.reduce(np.convolve, [share_pmf(std, m, reach) for m in means])
        places = np.arange(others.size) - others.size // 2 + offset
        gap = (y[:, None] - places) / std
        return np.exp(-gap * gap / 2) @ others

    smooth = np.mean([density(offset) for offset in np.arange(32) / 32], axis=0)
    ripple = np.abs(density(0.0) / smooth - 1).max()
    variance = std**2 * (shares - 1) / shares
    assert ripple == pytest.approx(2 * math.exp(-2 * math.pi**2 * variance), rel=0.5)


LOSS_STEP, LOSS_BINS, LARGEST_LOSS = 4e-4, 1 << 17, 22.0
PRODUCT_QUANTILES = (0.5, 1.0, 2.0, 3.0)
SPLITS = {
    "one": (1.0,),
    "two": (1.0, 1.0),
    "falling": (1.0, 0.5, 0.25, 0.125),
    "one and many": (1.0, *(0.1,) * 30),
    "sixty-four": (1.0,) * 64,
}


def loss_spectrum(one, other):
    """Return the transform of the privacy loss's distribution on a circular grid, and the rest.

    Each loss is split between its two neighbours on the grid so that its mean stays, which errs
    by the grid's square only. The rest is the probability of losses beyond `LARGEST_LOSS`.
    """
    possible = one > 0
    one, other = one[possible], other[possible]
    losses = np.log(one) - np.log(np.maximum(other, 1e-300))
    kept = np.abs(losses) < LARGEST_LOSS
    place = losses[kept] / LOSS_STEP
    low = np.floor(place).astype(np.int64)
    upper = place - low
    histogram = np.zeros(LOSS_BINS)
    np.add.at(histogram, low % LOSS_BINS, one[kept] * (1 - upper))
    np.add.at(histogram, (low + 1) % LOSS_BINS, one[kept] * upper)
    return np.fft.rfft(histogram), float(one[losses >= LARGEST_LOSS].sum())


def product_hockey_sticks(step, shares, multiplier, split, first):
    """Return the divergences at `PRODUCT_QUANTILES` where the shift is split like that.

    The coordinates' phases differ, from the one numbered `first` on.
    """
    spread = math.sqrt(shares) / step
    shifts = np.array(split) * spread / multiplier / math.hypot(*split)
    reach = math.ceil(10 * spread + shifts.max()) + 2
    fractions = np.zeros(shares - 1)  # on the grid others smooth the least
    spectra = {}
    total, bounded = np.ones(LOSS_BINS // 2 + 1, complex), 1.0
    for index, shift in enumerate(shifts):
        key = (shift, PHASES[(first + 5 * index) % 16])
        if key not in spectra:
            spectra[key] = loss_spectrum(*released(step, shares, *key, fractions, reach))
        total *= spectra[key][0]
        bounded *= 1 - spectra[key][1]
    weights = np.fft.irfft(total)
    losses = np.fft.fftfreq(LOSS_BINS, 1 / LOSS_BINS) * LOSS_STEP
    values = []
    for quantile in PRODUCT_QUANTILES:
        beyond = losses > quantile / multiplier
        gain = -np.expm1(quantile / multiplier - losses[beyond])
        values.append(float(weights[beyond] @ gain) + 1 - bounded)
    return values


def worst_product(step, shares, split):
    """Return the largest ratio to the Gaussian's, which does not depend on the split."""
    return max(
        value / gaussian_hockey_stick(multiplier, quantile / multiplier)
        for multiplier in (0.5, 1.0, 5.0)
        for first in (0, 3, 8)
        for quantile, value in zip(
            PRODUCT_QUANTILES,
            product_hockey_sticks(step, shares, multiplier, split, first),
            strict=True,
        )
    )


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
@pytest.mark.parametrize("shares", SHARES)
def test_no_direction_of_the_shift_gives_more_away(shares, split):
    assert worst_product(ALLOWED, shares, split) <= SLACK


@pytest.mark.parametrize("shares", SHARES)
def test_a_coarser_grid_is_caught_in_products_too(shares):
    assert worst_product(4.0, shares, SPLITS["two"]) > 1.2


def test_products_of_gaussians_are_reproduced():
    """The composition itself, on a grid so fine that rounding is nothing: the ratio is one."""
    for split in ((1.0,), (1.0, 1.0), (1.0,) * 64):
        assert worst_product(0.05, 2, split) == pytest.approx(1.0, abs=2e-3)
