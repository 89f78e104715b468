"""The real images that the project is developed on, through the importer that a user would use."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest

from fedfuse_ray.config.settings.data import ManifestData
from fedfuse_ray.data import importers
from tests.support.paths import SHARED

MANIFEST = SHARED / "data/real/images.parquet"
pytestmark = pytest.mark.skipif(
    not MANIFEST.is_file(), reason=f"{MANIFEST} is not part of the repository"
)
DATA = ManifestData(kind="manifest", path=str(MANIFEST), image_size=32)


def test_summary_names_the_federation() -> None:
    summary = importers.check(DATA)
    sites = Counter(domain for domain, _ in summary.header.institutions.values())
    assert summary.rows == 10_234
    assert sites == {"medical": 5, "materials": 6, "environmental": 4}
    assert sum(summary.images.values()) == summary.rows
    assert summary.held_out == ()
    colour = {name for name, shape in summary.header.shapes.items() if shape[0] == 3}
    assert colour == {"histopathology", "satellite", "aerial", "ground"}


def test_every_image_is_read_in_seconds() -> None:
    started = time.process_time()
    header, parts = importers.read(DATA, seed=0)
    images: Counter[str] = Counter()
    specimens: Counter[str] = Counter()
    for part in parts:
        batch = part.specimens
        assert batch.present.any(axis=1).all()
        classes = len(header.domains[batch.domain].classes)
        assert batch.labels.min() >= 0
        assert batch.labels.max() < classes
        for column, modality in enumerate(batch.modalities):
            values = batch.images[modality].astype(np.float32)
            assert values.shape[1:] == header.shapes[modality]
            assert values.min() >= 0
            assert values.max() <= 1
            shown = values[batch.present[:, column]]
            # An image that came out blank would have no spread.
            assert np.median(shown.std(axis=(1, 2, 3))) > 0.02
            images[modality] += len(shown)
        specimens[part.split] += len(batch)
    assert sum(images.values()) == 10_234
    assert specimens["test"] == 628
    assert time.process_time() - started < 20
