"""The noise multiplier that all institutions have in common, or none where theirs differ."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fedfuse_ray.errors import FedfuseError
from fedfuse_ray.federation.messages.updates import Update
from fedfuse_ray.federation.modes.grid import grid_of
from fedfuse_ray.federation.plan.chain import transforms_of
from tests.support.federations import plan_of, tiny

FACTORS = (2.0, 1.0, 0.5)


def planned(mode):
    settings = (f"privacy.mode={mode}", f"privacy.noise_schedule={list(FACTORS)}")
    fixed = ("privacy.target_epsilon=null", "privacy.noise_multiplier=1.5")
    return plan_of(tiny(*settings, *fixed, "training.rounds=3", paradigm="fedfuse"))


def with_one_other(plan, name):
    """Return the plan with another noise multiplier for one institution."""
    release = dataclasses.replace(plan.terms.releases[name], noise_multiplier=3.0)
    releases = {**plan.terms.releases, name: release}
    return dataclasses.replace(plan, privacy=dataclasses.replace(plan.terms, releases=releases))


def test_the_common_multiplier_is_everybodys_times_the_rounds_factor():
    terms = planned("record-distributed").terms
    for round, factor in enumerate(FACTORS, 1):
        assert terms.common_sigma(round) == 1.5 * factor
        assert all(terms.sigma(name, round) == 1.5 * factor for name in terms.releases)


@pytest.mark.parametrize("name", ["med-01", "med-02", "mat-01"])
def test_where_one_differs_there_is_no_common_multiplier(name):
    terms = with_one_other(planned("record-distributed"), name).terms
    with pytest.raises(FedfuseError, match=r"'record-distributed'.*differ: \[1\.5, 3\.0\]"):
        terms.common_sigma(1)
    # Each one's own is still known.
    assert terms.sigma(name, 1) == 3.0 * FACTORS[0]


def test_no_noise_is_made_by_a_multiplier_that_is_not_everybodys():
    """Nobody takes the first institution's in its place: not the grid, not the server."""
    plan = with_one_other(planned("record-distributed"), "mat-01")
    with pytest.raises(FedfuseError, match="differ"):
        grid_of(plan, 1).std("fusion")
    plan = with_one_other(planned("client"), "mat-01")
    transforms = transforms_of(plan.fractions, plan.terms, plan.randomness)
    sums = Update({"fusion": np.zeros(3, np.float32)})
    with pytest.raises(FedfuseError, match="differ"):
        transforms.means(sums, {"fusion": tuple(plan.by_name)}, 1)
    with pytest.raises(FedfuseError, match="differ"):
        plan.terms.lacking_std(2, 1)
