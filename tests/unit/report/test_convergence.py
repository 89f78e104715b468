"""Rounds to convergence, on tables written by hand."""

from __future__ import annotations

import pyarrow as pa
import pytest

from fedfuse_ray.errors import InputError
from fedfuse_ray.report.convergence import rounds_to_reach


def table(*accuracy: float | None) -> pa.Table:
    rounds = range(1, len(accuracy) + 1)
    return pa.table({"round": list(rounds), "accuracy": pa.array(accuracy, pa.float64())})


@pytest.mark.parametrize(
    ("accuracy", "fraction", "expected"),
    [
        ((0.2, 0.5, 0.8, 0.79, 0.8), 0.95, 3),
        ((0.2, 0.78, 0.5, 0.8, 0.8), 0.95, 4),  # touched in round 2, and lost again
        ((0.2, 0.78, 0.5, 0.8, 0.8), 0.5, 2),
        ((0.9, 0.8), 0.95, 1),  # fell, but never below the level
        ((0.1, 0.2, 0.3), 1.0, 3),
        ((0.5,), 0.95, 1),
        ((0.0, 0.0), 0.95, 1),
    ],
)
def test_the_round_from_which_on_the_level_is_kept(accuracy, fraction, expected):
    assert rounds_to_reach(table(*accuracy), fraction) == expected


def test_rounds_without_a_score_are_passed_over():
    assert rounds_to_reach(table(None, 0.2, None, 0.8, None)) == 4


def test_without_a_score_there_is_no_round():
    assert rounds_to_reach(table()) is None
    assert rounds_to_reach(table(None, None)) is None


@pytest.mark.parametrize("fraction", [0.0, 1.5, -0.1, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(InputError, match="fraction"):
        rounds_to_reach(table(0.5), fraction)
