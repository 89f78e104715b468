"""Projected features: fixed by the seed, of one norm, fitted on nobody's data."""

from __future__ import annotations

import pytest
import torch

from fedfuse_ray.models.initial import FEATURE_NORM, frozen_projection, project
from tests.support.federations import spec_of


def matrix(width=16, seed=0, features=200, modality="ct"):
    spec = spec_of(seed=seed, trainable=False, projection=width)
    return frozen_projection(spec, modality, "", features)


@pytest.mark.parametrize(("width", "features"), [(16, 200), (64, 64), (128, 48)])
def test_the_matrix_keeps_lengths_and_features_have_one_norm(width, features):
    rotation = matrix(width, features=features)
    small = rotation.T @ rotation if width <= features else rotation @ rotation.T
    torch.testing.assert_close(small, torch.eye(min(width, features)), atol=1e-5, rtol=0)
    norms = project(torch.rand(50, features), rotation).norm(dim=1)
    assert abs(float(norms.mean()) / FEATURE_NORM - 1) < 0.15


def test_a_vector_does_not_feel_its_batch_nor_its_scale():
    values, rotation = torch.rand(6, 200), matrix()
    whole = project(values, rotation)
    alone = torch.cat([project(row[None], rotation) for row in values])
    torch.testing.assert_close(alone, whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(project(9 * values, rotation), whole, rtol=1e-4, atol=1e-5)


def test_what_is_absent_stays_zero():
    assert not project(torch.zeros(2, 200), matrix()).any()
    assert not project(torch.ones(2, 200), matrix()).any()


def test_the_seed_and_the_modality_decide_the_matrix():
    assert torch.equal(matrix(), matrix())
    assert not torch.equal(matrix(), matrix(seed=1))
    assert not torch.equal(matrix(), matrix(modality="mri"))
