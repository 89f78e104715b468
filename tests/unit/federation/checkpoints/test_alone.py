from __future__ import annotations

import numpy as np
import pytest

from fedfuse_ray.federation.checkpoints import alone as alone_store
from fedfuse_ray.federation.messages.metrics import Scores
from fedfuse_ray.federation.messages.records import Alone
from tests.support.federations import random_blocks

VIEWS = (("ct",), ("ct", "mri"))
ALONE = Alone(
    scores=Scores(
        name="med-01",
        domain="medical",
        confusion={view: np.arange(4).reshape(2, 2) + i for i, view in enumerate(VIEWS)},
        attention={view: np.array([0.5, 1.5, 2.0]) * (i + 1) for i, view in enumerate(VIEWS)},
        correct=3,
        total=5,
    ),
    losses=(1.5, 0.5),
    validation=(0.25, 0.75),
    best_epoch=2,
    weights=random_blocks({"encoder/ct": 3, "fusion": 2}),
    seconds=1.25,
)


def test_a_result_comes_back_as_it_was(tmp_path):
    alone_store.save(tmp_path, ALONE)
    back = alone_store.read(tmp_path, "med-01")
    assert (back.losses, back.validation, back.best_epoch, back.seconds) == (
        ALONE.losses,
        ALONE.validation,
        2,
        1.25,
    )
    for field in ("name", "domain", "correct", "total"):
        assert getattr(back.scores, field) == getattr(ALONE.scores, field)
    assert tuple(back.scores.confusion) == tuple(back.scores.attention) == VIEWS
    for view in VIEWS:
        np.testing.assert_array_equal(back.scores.confusion[view], ALONE.scores.confusion[view])
        np.testing.assert_array_equal(back.scores.attention[view], ALONE.scores.attention[view])
    assert back.weights.keys() == ALONE.weights.keys()
    for name, vector in ALONE.weights.items():
        np.testing.assert_array_equal(back.weights[name], vector)


def test_nothing_is_read_where_nothing_is(tmp_path):
    assert alone_store.read(tmp_path / "nowhere", "med-01") is None
    alone_store.save(tmp_path, ALONE)
    assert alone_store.read(tmp_path, "med-02") is None


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.999])
def test_a_broken_file_counts_as_not_there(tmp_path, keep):
    alone_store.save(tmp_path, ALONE)
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    assert alone_store.read(tmp_path, "med-01") is None


def test_an_altered_byte_never_raises(tmp_path):
    alone_store.save(tmp_path, ALONE)
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    gone = 0
    for position in range(0, len(data), 3):
        altered = bytearray(data)
        altered[position] ^= 0xFF
        path.write_bytes(altered)
        back = alone_store.read(tmp_path, "med-01")
        gone += back is None
        assert back is None or back.losses == ALONE.losses
    assert gone > len(data) / 6
