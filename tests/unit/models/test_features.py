"""Features of frozen backbones: found again on disk, whoever made them, and only by their owner."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fedfuse_ray.models import features
from fedfuse_ray.models.features import BATCH, FeatureStore, FrozenFeatures, backbone_digest

SHAPE = (1, 4, 4)


class Counting(nn.Module):
    """A backbone that counts the batches it sees."""

    def __init__(self, seed=0, preprocessing=()):
        super().__init__()
        torch.manual_seed(seed)
        self.layer, self.preprocessing, self.calls = nn.Linear(16, 3), preprocessing, 0

    def forward(self, images):
        self.calls += 1
        return self.layer(images.flatten(1))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDFUSE_RAY_CACHE", str(tmp_path))


def images(count=5, seed=0):
    return np.random.default_rng(seed).random((count, *SHAPE)).astype(np.float16)


def kept(backbone):
    return FrozenFeatures(backbone, SHAPE, 3, torch.device("cpu"))


def test_features_are_those_of_the_backbone_and_made_once(tmp_path):
    backbone, batch = Counting(), images()
    values = kept(backbone).of(batch)
    with torch.no_grad():
        np.testing.assert_allclose(values, backbone(torch.tensor(batch, dtype=torch.float32)))
    seen = backbone.calls
    other = Counting()
    np.testing.assert_array_equal(kept(other).of(batch[::-1]), values[::-1])
    assert (seen, other.calls) == (2, 0)


def test_an_images_features_do_not_depend_on_what_else_is_computed(tmp_path, monkeypatch):
    batch = images(2 * BATCH + 3)
    together = kept(Counting()).of(batch)
    monkeypatch.setenv("FEDFUSE_RAY_CACHE", str(tmp_path / "other"))
    one_by_one = kept(Counting())
    alone = np.concatenate([one_by_one.of(batch[i : i + 1]) for i in range(len(batch))])
    np.testing.assert_array_equal(alone, together)


@pytest.mark.parametrize("workers", [1, 3])
def test_what_is_made_ahead_is_found_and_is_the_same(tmp_path, monkeypatch, workers):
    batch = images(features.PACK + BATCH + 1)
    ahead = kept(Counting())
    missing = ahead.missing(batch)
    assert sum(ahead.compute_ahead(batch, missing, workers)) == len(batch)
    found = Counting()
    values = kept(found).of(batch)
    assert not found.calls
    assert kept(found).missing(batch) == {}
    monkeypatch.setenv("FEDFUSE_RAY_CACHE", str(tmp_path / "other"))
    np.testing.assert_array_equal(kept(Counting()).of(batch), values)


def test_other_weights_preprocessing_shapes_and_devices_have_other_features():
    digests = {
        backbone_digest(Counting(), SHAPE, "cpu"),
        backbone_digest(Counting(seed=1), SHAPE, "cpu"),
        backbone_digest(Counting(preprocessing=(128,)), SHAPE, "cpu"),
        backbone_digest(Counting(), (1, 2, 8), "cpu"),
        backbone_digest(Counting(), SHAPE, "cuda"),
    }
    assert len(digests) == 5
    assert backbone_digest(Counting(), SHAPE, "cpu") in digests


def test_equal_images_are_computed_once(tmp_path):
    backbone = Counting()
    values = kept(backbone).of(np.concatenate([images(1)] * (3 * BATCH)))
    assert backbone.calls == 1
    assert (values == values[0]).all()


def test_only_the_owner_reads_the_cache(tmp_path):
    kept(Counting()).of(images())
    folder = tmp_path / "features"
    modes = {p.stat().st_mode & 0o777 for p in folder.rglob("*.npy")}
    assert modes == {0o600}
    assert {p.stat().st_mode & 0o777 for p in (folder, *folder.iterdir())} == {0o700}


def test_a_damaged_file_is_made_again(tmp_path):
    batch = images()
    values = kept(Counting()).of(batch)
    (file,) = (tmp_path / "features").rglob("*.npy")
    file.write_bytes(file.read_bytes()[:100])
    np.testing.assert_array_equal(kept(Counting()).of(batch), values)
    found = Counting()
    np.testing.assert_array_equal(kept(found).of(batch), values)
    assert not found.calls


def test_what_another_process_stores_is_seen(tmp_path):
    one, other = (FeatureStore(tmp_path / "x", 2) for _ in range(2))
    assert other.known([b"a" * 32]) == set()
    one.add([b"a" * 32], np.ones((1, 2), np.float32))
    assert other.find([b"a" * 32, b"b" * 32]).keys() == {b"a" * 32}


def test_no_image_no_features():
    assert kept(Counting()).of(images(0)).shape == (0, 3)
