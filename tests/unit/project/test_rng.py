from __future__ import annotations

import subprocess
import sys
from enum import IntEnum, StrEnum

import numpy as np
import pytest
import torch

from fedfuse_ray import rng


def test_a_stream_is_named_by_everything_that_names_it():
    names = [
        (0, "shuffle", "med-01", 1),
        (1, "shuffle", "med-01", 1),
        (0, "noise", "med-01", 1),
        (0, "shuffle", "med-02", 1),
        (0, "shuffle", "med-01", 2),
        (0, "shuffle", "med-01", "1"),
        (0, "shuffle", "med-01"),
        (0, "shuffle", "med", "-01", 1),
        (0, "shuffle", "med-0", 11),
    ]
    assert len({rng.derive(*name) for name in names}) == len(names)
    assert all(0 <= rng.derive(*name) < 2**64 for name in names)


class Step(StrEnum):
    """What modes name their steps by."""

    MASK = "mask"


def test_a_members_own_type_names_no_other_stream():
    plain = rng.derive(3, "exchange", "med-01", "mask", 2)
    for step in ("mask", Step.MASK, np.str_("mask")):
        for number in (2, np.int64(2), np.uint8(2), IntEnum("Round", {"SECOND": 2}).SECOND):
            assert rng.derive(3, "exchange", "med-01", step, number) == plain
    assert rng.derive(np.int64(3), "exchange", "med-01", "mask", 2) == plain
    # A number and its digits stay two names.
    assert rng.derive(3, "exchange", "med-01", "mask", "2") != plain


def test_the_same_name_gives_the_same_stream_in_another_process():
    code = "from fedfuse_ray import rng; print(rng.generator(7, 'x', 'y', 3).integers(2**62))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(other.stdout) == rng.generator(7, "x", "y", 3).integers(2**62)


def test_streams_leave_the_global_generators_alone():
    np.random.seed(0)
    torch.manual_seed(0)
    before = np.random.get_state()[1].tolist(), torch.random.get_rng_state()
    rng.generator(0, "x").random(5)
    torch.rand(5, generator=rng.torch_generator(0, "x"))
    assert np.random.get_state()[1].tolist() == before[0]
    assert torch.equal(torch.random.get_rng_state(), before[1])


def test_torch_streams_repeat_and_differ():
    first = torch.rand(8, generator=rng.torch_generator(0, "x", 1))
    assert torch.equal(first, torch.rand(8, generator=rng.torch_generator(0, "x", 1)))
    assert not torch.equal(first, torch.rand(8, generator=rng.torch_generator(0, "x", 2)))


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_every_seed_that_the_config_allows_works_in_torch(seed):
    assert rng.torch_generator(seed, "x").initial_seed() < 2**63
