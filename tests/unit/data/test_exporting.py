"""Generated specimens written as a manifest are what an importer reads back."""

from __future__ import annotations

import numpy as np
import pytest

from fedfuse_ray.config.settings.data import ManifestData
from fedfuse_ray.data import importers
from fedfuse_ray.data.exporting import write_manifest
from fedfuse_ray.data.phantoms import generate
from tests.support.federations import tiny


@pytest.fixture(scope="module")
def round_trip(tmp_path_factory):
    """Return what was generated and what was imported, by (split, owner)."""
    experiment = tiny()
    path = tmp_path_factory.mktemp("exported") / "images.parquet"
    header, parts = generate(experiment.data, experiment.institutions, seed=0)
    rows = write_manifest(path, header, parts)
    _, again = generate(experiment.data, experiment.institutions, seed=0)
    data = ManifestData(kind="manifest", path=str(path), image_size=16, signal_length=64)
    summary = importers.check(data)
    assert summary.rows == rows
    imported_header, imported = importers.read(data, seed=0)
    return (
        header,
        {(p.split, p.owner): p.specimens for p in again},
        imported_header,
        {(p.split, p.owner): p.specimens for p in imported},
        rows,
    )


def test_the_same_institutions_domains_and_shapes(round_trip):
    header, _, imported, _, _ = round_trip
    assert {n: (d, sorted(m)) for n, (d, m) in imported.institutions.items()} == {
        n: (d, sorted(m)) for n, (d, m) in header.institutions.items()
    }
    assert imported.shapes == header.shapes
    for name, info in header.domains.items():
        assert set(imported.domains[name].modalities) == set(info.modalities)
        assert set(imported.domains[name].classes) == set(info.classes)


def test_a_row_for_every_image_that_is_there(round_trip):
    _, generated, _, _, rows = round_trip
    assert rows == sum(int(s.present.sum()) for s in generated.values())


def test_the_same_specimens_in_the_same_splits(round_trip):
    header, generated, imported_header, imported, _ = round_trip
    assert imported.keys() == generated.keys()
    for key, specimens in generated.items():
        back = imported[key]
        assert back.ids == specimens.ids
        classes = header.domains[specimens.domain].classes
        names = imported_header.domains[specimens.domain].classes
        assert [names[k] for k in back.labels] == [classes[k] for k in specimens.labels]
        for column, modality in enumerate(specimens.modalities):
            there = back.present[:, back.modalities.index(modality)]
            np.testing.assert_array_equal(there, specimens.present[:, column])


def test_images_come_back_but_for_rounding(round_trip):
    _, generated, _, imported, _ = round_trip
    for key, specimens in generated.items():
        for column, modality in enumerate(specimens.modalities):
            there = specimens.present[:, column]
            before = specimens.images[modality][there].astype(np.float32)
            after = imported[key].images[modality][there].astype(np.float32)
            if before.ndim == 3:  # An importer stretches every signal to its own range.
                low, high = before.min(axis=2, keepdims=True), before.max(axis=2, keepdims=True)
                before = (before - low) / (high - low)
            np.testing.assert_allclose(after, before, atol=2e-3)


def test_broken_off_the_file_that_was_there_stays(tmp_path):
    experiment = tiny()
    path = tmp_path / "images.parquet"
    path.write_bytes(b"old")
    header, parts = generate(experiment.data, experiment.institutions, seed=0)

    def some():
        yield next(parts)
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_manifest(path, header, some())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
