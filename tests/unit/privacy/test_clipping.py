from __future__ import annotations

import numpy as np
import pytest
import torch

from fedfuse_ray.errors import InputError
from fedfuse_ray.privacy.mechanisms.clipping import assign_groups, clip_and_sum_torch
from tests.support.privacy.clipping import clipped, norms_of, one_by_one

BLOCKS = ["encoder/ct", "encoder/mri", "fusion", "head/medical"]


def test_groups_are_found_by_block_then_modality_then_rest():
    assert set(assign_groups(BLOCKS, []).values()) == {"joint"}
    assert assign_groups(BLOCKS, ["ct", "head/medical", "rest"]) == {
        "encoder/ct": "ct",
        "encoder/mri": "rest",
        "fusion": "rest",
        "head/medical": "head/medical",
    }


def test_a_modalitys_group_holds_its_encoders_of_every_tier():
    blocks = ["encoder/ct", "encoder/ct@edge", "encoder/mri@ct", "fusion"]
    assert assign_groups(blocks, ["ct", "rest"]) == {
        "encoder/ct": "ct",
        "encoder/ct@edge": "ct",
        "encoder/mri@ct": "rest",
        "fusion": "rest",
    }
    own = assign_groups(blocks, ["ct", "ct@edge", "rest"])
    assert (own["encoder/ct"], own["encoder/ct@edge"]) == ("ct", "ct@edge")


def test_a_block_that_no_group_clips_is_refused():
    with pytest.raises(InputError, match="encoder/mri"):
        assign_groups(BLOCKS, ["ct", "fusion", "head"])
    with pytest.raises(InputError, match="xrd"):
        assign_groups(BLOCKS, ["xrd", "rest"])
    with pytest.raises(InputError, match="fusion"):
        clipped({"fusion": np.ones((2, 3))}, {"ct": 1.0}, {"fusion": "fusion"})


def test_blocks_with_different_records_are_refused():
    with pytest.raises(InputError, match="row for every record"):
        clipped({"a": np.ones((2, 3)), "b": np.ones((3, 3))}, {"joint": 1.0})
    with pytest.raises(InputError, match="clip_norm"):
        clipped({"a": np.ones((2, 3))}, {"joint": 0.0})


def test_groups_clip_apart():
    gradients = {"encoder/ct": np.full((1, 4), 2.0), "fusion": np.full((1, 4), 0.1)}
    apart = clipped(
        gradients, {"ct": 1.0, "rest": 1.0}, assign_groups(list(gradients), ["ct", "rest"])
    )
    assert np.linalg.norm(apart.sums["encoder/ct"]) == pytest.approx(1.0, abs=1e-4)
    np.testing.assert_allclose(apart.sums["fusion"], 0.1, rtol=1e-6)
    assert apart.norms["ct"][0] == 4.0


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_poisoned_record_is_dropped_from_every_block_and_group(poison):
    rows = np.ones((3, 4), dtype=np.float32)
    bad = rows.copy()
    bad[1, 2] = poison
    gradients, groups = {"ct": rows, "fusion": bad}, {"ct": "ct", "fusion": "rest"}
    clip_norms = {"ct": 10.0, "rest": 10.0}
    for total in clipped(gradients, clip_norms, groups).sums.values():
        np.testing.assert_allclose(total, 2.0)


def test_gradients_that_overflow_float32_squares_are_still_clipped():
    rows = np.full((1, 4), 1e30, dtype=np.float32)
    total = clipped({"a": rows}, {"joint": 1.0}).sums["a"]
    assert np.linalg.norm(total) == pytest.approx(1, abs=1e-4)


def test_gradients_whose_squares_overflow_double_too_are_dropped():
    rows = np.array([[1e200, 0.0], [3.0, 4.0]])
    np.testing.assert_allclose(clipped({"a": rows}, {"joint": 9.0}).sums["a"], [3.0, 4.0])


def test_no_records_sum_to_zero():
    empty = np.empty((0, 7), dtype=np.float32)
    np.testing.assert_array_equal(clipped({"a": empty}, {"joint": 1.0}).sums["a"], np.zeros(7))


def test_torch_takes_parameters_as_they_are_and_flattens_in_order():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 3, 2, generator=generator)
    bias = torch.randn(6, 3, generator=generator)
    head = torch.randn(6, 5, generator=generator)
    ours = clip_and_sum_torch({"fusion": [weight, bias], "head": [head]}, {"joint": 1.5})
    flat = torch.cat([weight.flatten(1), bias], dim=1).numpy()
    rows = {"fusion": flat, "head": head.numpy()}
    for block, total in one_by_one(rows, 1.5).items():
        # Factors are shrunk by 2e-5, to pay for the rounding.
        np.testing.assert_allclose(ours.sums[block], total * (1 - 2e-5), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours.norms["joint"], norms_of(rows), rtol=1e-6)


def test_torch_norms_of_long_blocks_are_as_good_as_double():
    rows = torch.randn(3, 100_001, generator=torch.Generator().manual_seed(1)) + 1.0
    whole = clip_and_sum_torch({"a": [rows]}, {"joint": 1.0})
    exact = torch.linalg.vector_norm(rows.double(), dim=1).numpy()
    np.testing.assert_allclose(whole.norms["joint"], exact, rtol=2e-6)
    alone = clip_and_sum_torch({"a": [rows[:1]]}, {"joint": 1.0}).sums["a"].astype(np.float64)
    assert 0.9999 < np.linalg.norm(alone) <= 1.0
