"""The related work's systems of fusion and pre-training, each run small."""

from __future__ import annotations

import pytest

from fedfuse_ray.config import load
from fedfuse_ray.report.convergence import rounds_to_reach
from fedfuse_ray.report.store import read_rounds, read_run
from fedfuse_ray.runs.running import run
from tests.support.federations import rows_of

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


def test_xu_pairs_first_where_there_are_pairs(tmp_path):
    pairs = "training.contrastive.rounds=1"
    run(small("xu", pairs), tmp_path)
    rows = rows_of(tmp_path, "institutions.parquet")
    trained = [{r["institution"] for r in rows if r["round"] == n and r["steps"]} for n in (1, 2)]
    assert trained == [{"med-01"}, {"med-01", "med-02"}]


def test_without_pairs_nobody_owns_two_modalities_and_nobody_waits():
    row = load("systems/xu")
    assert row.training.contrastive is not None
    wanted = {i.name for i in row.institutions if i.domain == "medical"}
    for variant in ("without-pairs", "without-pairs-scratch"):
        experiment = load(f"systems/xu@{variant}")
        assert experiment.training.contrastive is None
        owned = {i.name: i.modalities for i in experiment.institutions}
        assert owned.keys() == wanted
        for institution in row.institutions:
            if institution.name in wanted:
                assert len(owned[institution.name]) == 1
                assert set(owned[institution.name]) < set(institution.modalities)
