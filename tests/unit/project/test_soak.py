"""The verdict of the memory benchmark: what passes for flat, and what does not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.soak import Sampler, leaks, lines

ROUNDS = range(10, 1001, 10)
PID = 7


def readings(size: Callable[[int], float]) -> Sampler:
    sampler = Sampler(10)
    sampler.samples[PID] = [(r, round(size(r))) for r in ROUNDS]
    sampler.names[PID] = "driver"
    return sampler


def verdict(during: Callable[[int], float], idle: Callable[[int], float] = lambda _: 1e8) -> bool:
    return not leaks(lines(readings(during), 500, readings(idle)))


def test_a_planted_leak_is_told():
    assert not verdict(lambda r: 1e8 + 5e3 * r)


def test_a_leak_is_told_through_the_noise_of_an_allocator():
    noise = np.random.default_rng(3).normal(0.0, 2e4, 1001)
    assert not verdict(lambda r: 1e8 + 5e3 * r + noise[r])


@pytest.mark.parametrize(
    "during",
    [
        lambda r: 1e8,
        lambda r: 1e8 + 5e3 * min(r, 400),
        lambda r: 1e8 + (4e6 if r > 700 else 0.0),
        lambda r: 1e8 + 500.0 * r,
    ],
    ids=["constant", "warms up", "one step", "under a page in eight rounds"],
)
def test_what_is_flat(during: Callable[[int], float]):
    assert verdict(during)


def test_growth_that_an_idle_ray_has_too_is_none_of_the_rounds():
    def growing(r: int) -> float:
        return 1e8 + 5e3 * r

    assert verdict(growing, growing)
