"""One federated round of every encoder, trained end to end and frozen."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pyarrow.parquet as pq
import pytest

from fedfuse_ray.config.settings.model import EncoderKind
from fedfuse_ray.federation.checkpoints import checkpoint as checkpoints
from fedfuse_ray.models.initial import initial_blocks
from fedfuse_ray.runs.running import run
from tests.support.federations import plan_of, tiny

SMALL = (
    "data.image_size=32",  # VGG halves the image five times.
    "data.domains={medical: {modalities: [ct, mri], classes: 2, specimens: 24}}",
    "institutions=[{name: med-01, domain: medical, modalities: [ct, mri]},"
    "{name: med-02, domain: medical, modalities: [ct, mri], share: 0.5}]",
    "training.rounds=1",
    "training.batch_size=8",
    # One heavy encoder is enough; the other modality's stays small.
    "model.encoders.mri={kind: cnn, width: 4}",
)

ELSEWHERE = {"timm", "minirocket"}
"""Kinds that ask for a name, or for signals; see `test_frozen_features.py`."""


@pytest.mark.parametrize("trainable", [True, False], ids=["trainable", "frozen"])
@pytest.mark.parametrize("kind", sorted({*get_args(EncoderKind)} - ELSEWHERE))
def test_a_round(tmp_path, kind, trainable):
    settings = (*SMALL, f"model.encoder={{kind: {kind}, width: 4, trainable: {trainable}}}")
    experiment = tiny(*settings)
    summary = run(experiment, tmp_path)
    plan = plan_of(experiment)
    initial = initial_blocks(plan.spec)
    (path,) = (tmp_path / "checkpoints").iterdir()
    after = checkpoints.read(path).weights
    assert after.keys() == initial.keys()
    for name, vector in after.items():
        assert np.isfinite(vector).all()
        assert not np.array_equal(vector, initial[name]), name
    row = pq.read_table(tmp_path / "rounds.parquet").to_pylist()[0]
    assert np.isfinite(row["loss"])
    assert row["participants"] == 2
    assert set(summary.accuracy_by_modality) == {"ct", "mri"}
    sent = 4 * 2 * sum(vector.size for vector in after.values())
    assert summary.communication.fp32_uplink_bytes_per_round == sent
    assert sent < summary.communication.uplink_bytes_per_round < sent + 2000
    if not trainable:
        # Only the projection travels; the backbone stays where it is.
        assert after["encoder/ct"].nbytes < 100_000


@pytest.mark.parametrize("kind", ["cnn", "efficientnet_b0"])
def test_a_round_repeats_bit_by_bit(tmp_path, kind):
    settings = (*SMALL, f"model.encoder={{kind: {kind}, width: 4, trainable: false}}")
    first, again = (run(tiny(*settings), tmp_path / name) for name in "ab")
    assert first.weights_sha256 == again.weights_sha256
