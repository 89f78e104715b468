"""The related work's systems of fusion and pre-training, each run small."""

from __future__ import annotations

import pytest
from federations import rows_of

from fedfuse_ray.config import load
from fedfuse_ray.report.convergence import rounds_to_reach
from fedfuse_ray.report.store import read_rounds, read_run
from fedfuse_ray.running import run

SMALL = (
    "execution.executor=serial",
    "model.encoder.width=4",
    "training.rounds=3",
    "training.max_epochs=2",
)
DRAWN = "model.encoder.weights=random"
"""Public encoders of tiny's images would have to be trained first."""


def small(system, *settings):
    return load(f"systems/{system}", [*SMALL, *settings], root="tiny")


@pytest.mark.parametrize("variant", ["", "@late", "@joint", "@early"])
def test_baltrusaitis_heeds_every_modality_in_every_fusion(tmp_path, variant):
    run(small(f"baltrusaitis{variant}", DRAWN), tmp_path)
    medical = read_run(tmp_path).evaluation.domains["medical"]
    shown = {view.modalities: view.confusion for view in medical.views}
    assert shown["ct", "mri"] not in (shown["ct",], shown["mri",])


def test_ramachandram_shares_fewer_stages_the_deeper_it_fuses(tmp_path):
    sizes = []
    for variant in ("depth-1", "depth-3"):
        folder = tmp_path / variant
        run(small(f"ramachandram@{variant}", "training.rounds=1"), folder)
        rows = rows_of(folder, "institutions.parquet")
        sizes.append({r["institution"]: r["payload_bytes"] for r in rows})
    # Who has one modality sends a whole CNN at any depth; a second modality adds its own stages.
    shallow, deep = sizes
    assert shallow["med-02"] == deep["med-02"]
    assert shallow["med-01"] < deep["med-01"]


def test_decost_tells_when_it_has_converged(tmp_path):
    run(small("decost", DRAWN), tmp_path)
    assert list(read_run(tmp_path).evaluation.domains) == ["materials"]
    assert rounds_to_reach(read_rounds(tmp_path)) in (1, 2, 3)
    starts = [load(f"systems/decost{v}").model.encoder for v in ("", "@from-scratch", "@frozen")]
    assert [(e.weights, e.trainable) for e in starts] == [
        ("public", True),
        ("random", True),
        ("public", False),
    ]
