"""The last guard of a secure round: no sum is used that has less noise than was charged."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.federation.rounds.serial import SerialExecutor
from fedfuse_ray.privacy.secure_aggregation import Server
from tests.support.federations import dataset_of, plan_of, tiny

EXPERIMENT = tiny(paradigm="fedfuse")


@pytest.fixture
def executor():
    executor = SerialExecutor()
    executor.start(plan_of(EXPERIMENT), dataset_of(EXPERIMENT).folder)
    executor.load(None)
    return executor


def reveal_only(monkeypatch, block, count):
    """Have the server reveal a block's sum though only so many of its owners survived."""
    honest = Server.unmask

    def careless(server):
        unmasked = honest(server)
        fewer = unmasked.owners[block][:count]
        return dataclasses.replace(unmasked, owners={**unmasked.owners, block: fewer})

    monkeypatch.setattr(Server, "unmask", careless)


def test_a_sum_with_too_few_shares_of_noise_is_refused_and_changes_nothing(executor, monkeypatch):
    plan = plan_of(EXPERIMENT)
    assert plan.terms.shares("fusion") == 2
    reveal_only(monkeypatch, "fusion", 1)
    before = {name: vector.copy() for name, vector in executor.weights.items()}
    with pytest.raises(ProtocolError, match="round 1 revealed sums with too little noise"):
        executor.train(1)
    for name, vector in executor.weights.items():
        np.testing.assert_array_equal(vector, before[name])


@pytest.mark.parametrize("count", [2, 3])
def test_as_many_as_are_tolerated_may_be_missing(executor, monkeypatch, count):
    reveal_only(monkeypatch, "fusion", count)
    assert executor.train(1).aggregation.accepted
