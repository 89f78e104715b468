"""Sizes that the files' headers decide, where the configuration leaves them to the files."""

from __future__ import annotations

import numpy as np
import pytest

from fedfuse_ray.config.settings.data import ManifestData
from fedfuse_ray.data import importers
from fedfuse_ray.data.index import told_shapes
from tests.support.importer_files import federation, npy_bytes, png, save


def shapes_of(folder, contents, **sizes):
    """Return the modalities' shapes; the k-th image of a modality has the k-th of its contents."""
    rows, counts = federation(), dict.fromkeys(contents, 0)
    for line in rows:
        each = contents[line["modality"]]
        file = folder / line["path"]
        file.parent.mkdir(exist_ok=True)
        if not file.exists():
            file.write_bytes(each[counts[line["modality"]] % len(each)])
            counts[line["modality"]] += 1
    given = {"image_size": None, "signal_length": None, **sizes}
    data = ManifestData(kind="manifest", path=str(save(folder, rows)), **given)
    return importers.check(data).header.shapes


def test_each_modality_has_the_median_of_its_own_images(tmp_path):
    contents = {"ct": [png(size=s) for s in (40, 64, 64, 90, 64)], "mri": [png(size=50)]}
    assert shapes_of(tmp_path, contents) == {"ct": (1, 64, 64), "mri": (1, 50, 50)}


@pytest.mark.parametrize(("size", "taken"), [(8, 32), (32, 32), (128, 128), (700, 128)])
def test_sizes_stay_within_what_encoders_see(tmp_path, size, taken):
    contents = {"ct": [png(size=size)], "mri": [png(size=64)]}
    assert shapes_of(tmp_path, contents)["ct"] == (1, taken, taken)


@pytest.mark.parametrize(("length", "taken"), [(20, 64), (600, 600), (5000, 1024)])
def test_signals_have_their_own_length(tmp_path, length, taken):
    signal = npy_bytes(np.random.default_rng(0).random((2, length), np.float32))
    shapes = shapes_of(tmp_path, {"ct": [signal], "mri": [png(size=64)]})
    assert shapes == {"ct": (2, taken), "mri": (1, 64, 64)}


def test_a_size_in_the_configuration_decides(tmp_path):
    contents = {"ct": [png(size=64)], "mri": [npy_bytes(np.arange(100.0))]}
    shapes = shapes_of(tmp_path, contents, image_size=48, signal_length=80)
    assert shapes == {"ct": (1, 48, 48), "mri": (1, 80)}


def test_the_longer_side_counts(tmp_path):
    wide = npy_bytes(np.zeros((40, 100, 3), np.uint8))
    assert shapes_of(tmp_path, {"ct": [wide], "mri": [png(size=64)]})["ct"] == (3, 100, 100)


def test_shapes_are_told_in_words():
    shapes = {"ct": (1, 64, 64), "pet": (3, 32, 32), "raman": (2, 512)}
    assert told_shapes(shapes) == "ct 64x64 gray; pet 32x32 colour; raman 512 bins of 2 channels"
