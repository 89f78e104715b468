from __future__ import annotations

import numpy as np
import pytest

from fedfuse_ray.errors import InputError
from fedfuse_ray.privacy.mechanisms.sampling import (
    expected_batch,
    poisson_sample,
    sampling_rate,
    steps_per_epoch,
)
from fedfuse_ray.privacy.randomness import derived


def test_rates_come_from_public_sizes():
    assert sampling_rate(64, 1650) == 64 / 1650
    assert sampling_rate(64, 10) == 1.0
    assert (steps_per_epoch(64, 1650), steps_per_epoch(64, 128), steps_per_epoch(64, 9)) == (
        26,
        2,
        1,
    )
    assert expected_batch(0.1, 50) == pytest.approx(5.0)
    with pytest.raises(InputError):
        sampling_rate(0, 5)


def test_every_step_has_its_own_stream_and_repeats():
    root = derived(7)
    first = poisson_sample(500, 0.1, root, "med-01", 3, 2)
    np.testing.assert_array_equal(first, poisson_sample(500, 0.1, derived(7), "med-01", 3, 2))
    others = (
        (derived(8), "med-01", 3, 2),
        (root.given(b"other weights"), "med-01", 3, 2),
        (root, "med-02", 3, 2),
        (root, "med-01", 4, 2),
        (root, "med-01", 3),
    )
    for other in others:
        assert not np.array_equal(first, poisson_sample(500, 0.1, *other))


def test_full_batch_takes_all_and_an_empty_batch_is_a_batch():
    np.testing.assert_array_equal(poisson_sample(5, 1.0, derived(0), "a", 0), np.arange(5))
    sizes = [len(poisson_sample(3, 0.05, derived(0), "a", round_)) for round_ in range(50)]
    assert 0 in sizes
    assert poisson_sample(0, 0.5, derived(0), "a", 0).shape == (0,)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1, float("nan")])
def test_a_rate_that_is_no_probability_is_refused(rate):
    with pytest.raises(InputError, match="sampling_rate"):
        poisson_sample(5, rate, derived(0), "a", 0)
