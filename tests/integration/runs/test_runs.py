"""Whole runs in this process: every strategy, fusion and paradigm, broken off and continued."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from fedfuse_ray import blocks
from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.checkpoints import checkpoint as checkpoints
from fedfuse_ray.federation.strategies import STRATEGIES
from fedfuse_ray.models.initial import initial_blocks
from fedfuse_ray.runs.running import resume, run
from tests.support.federations import plan_of, rows_of, scores_of, tiny
from tests.support.processes.interruptions import CutAfter, PowerCut

FUSIONS = ["attention", "mean", "concat", "early", "intermediate", "late", "hybrid"]


@pytest.mark.parametrize("kind", STRATEGIES)
def test_a_run_broken_off_and_continued_is_the_same_run(tmp_path, kind):
    experiment = tiny(f"strategy.kind={kind}", "training.rounds=4")
    whole = run(experiment, tmp_path / "whole")
    assert whole.weights_sha256 != blocks.sha256(initial_blocks(plan_of(experiment).spec))
    for count in (1, 3):
        broken = tmp_path / f"broken-{count}"
        with pytest.raises(PowerCut):
            run(experiment, broken, progress=CutAfter(count))
        assert not (broken / "summary.json").exists()
        # The round was told before its checkpoint was written, so it is done again.
        path = checkpoints.latest(broken / "checkpoints", 99)
        assert (path is None) if count == 1 else (checkpoints.round_of(path) == count - 1)
        resumed = resume(broken)
        assert resumed.weights_sha256 == whole.weights_sha256
        assert scores_of(broken) == scores_of(tmp_path / "whole")
        for table in ("rounds.parquet", "institutions.parquet"):
            assert rows_of(broken, table) == rows_of(tmp_path / "whole", table)


def test_a_run_with_a_broken_checkpoint_goes_on_from_the_one_before(tmp_path):
    experiment = tiny("strategy.kind=scaffold", "training.rounds=4")
    whole = run(experiment, tmp_path / "whole")
    with pytest.raises(PowerCut):
        run(experiment, tmp_path / "broken", progress=CutAfter(4))
    newest = checkpoints.path_of(tmp_path / "broken" / "checkpoints", 3)
    newest.write_bytes(newest.read_bytes()[:100])
    assert resume(tmp_path / "broken").weights_sha256 == whole.weights_sha256
    assert rows_of(tmp_path / "broken", "rounds.parquet") == rows_of(
        tmp_path / "whole", "rounds.parquet"
    )


def test_a_finished_run_continued_is_scored_again(tmp_path):
    first = run(tiny(), tmp_path)
    rows = rows_of(tmp_path, "rounds.parquet")
    again = resume(tmp_path)
    assert again.weights_sha256 == first.weights_sha256
    assert again.accuracy == first.accuracy
    assert rows_of(tmp_path, "rounds.parquet") == rows


def test_a_fresh_run_does_not_see_an_older_ones_checkpoints(tmp_path):
    run(tiny("training.rounds=4"), tmp_path)
    with pytest.raises(PowerCut):
        run(tiny("seed=1", "training.rounds=4"), tmp_path, progress=CutAfter(1))
    assert list((tmp_path / "checkpoints").iterdir()) == []
    assert not (tmp_path / "summary.json").exists()
    alone = run(tiny("seed=1", "training.rounds=4"), tmp_path / "alone")
    assert resume(tmp_path).weights_sha256 == alone.weights_sha256


@pytest.mark.parametrize("paradigm", ["isolated", "centralized"])
def test_participants_that_trained_alone_are_not_trained_again(tmp_path, paradigm):
    experiment = tiny(paradigm=paradigm)
    whole = run(experiment, tmp_path / "whole")
    with pytest.raises(PowerCut):
        run(experiment, tmp_path / "broken", progress=CutAfter(1))
    (kept,) = (tmp_path / "broken" / "checkpoints").iterdir()
    stamp = kept.stat().st_mtime_ns
    assert resume(tmp_path / "broken").weights_sha256 == whole.weights_sha256
    assert kept.stat().st_mtime_ns == stamp
    assert scores_of(tmp_path / "broken") == scores_of(tmp_path / "whole")
    for table in ("rounds.parquet", "institutions.parquet"):
        assert rows_of(tmp_path / "broken", table) == rows_of(tmp_path / "whole", table)


def test_nothing_is_continued_where_nothing_was_started(tmp_path):
    with pytest.raises(InputError, match=r"--resume.*config\.yaml is missing"):
        resume(tmp_path)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_runs_and_repeats(tmp_path, fusion):
    depth = 1 if fusion == "intermediate" else "null"
    experiment = tiny(f"model.fusion={fusion}", f"model.fusion_depth={depth}")
    first, again = (run(experiment, tmp_path / name) for name in "ab")
    assert first.weights_sha256 == again.weights_sha256
    assert scores_of(tmp_path / "a") == scores_of(tmp_path / "b")
    views = json.loads((tmp_path / "a" / "evaluation.json").read_text())["domains"]["medical"]
    attention = [view["attention"] for view in views["views"]]
    assert all(attention) if fusion in ("attention", "hybrid") else not any(attention)


def test_another_seed_is_another_run(tmp_path):
    first, other = (run(tiny(f"seed={seed}"), tmp_path / str(seed)) for seed in (0, 1))
    assert first.weights_sha256 != other.weights_sha256


def test_federated_trains_a_model_for_each_modality(tmp_path):
    summary = run(tiny(paradigm="federated"), tmp_path)
    weights = checkpoints.read(checkpoints.latest(tmp_path / "checkpoints", 99)).weights
    assert {name for name in weights if not name.startswith("encoder/")} == {
        "head/medical/ct",
        "head/medical/mri",
        "head/materials/electron_microscopy",
        "head/materials/spectroscopy",
    }
    single = summary.accuracy_by_modality
    assert summary.accuracy["medical"] == pytest.approx((single["ct"] + single["mri"]) / 2)


def test_the_tables_add_up(tmp_path):
    experiment = tiny("training.rounds=2", "training.local_epochs=2")
    summary = run(experiment, tmp_path)
    plan = plan_of(experiment)
    rounds = pq.read_table(tmp_path / "rounds.parquet").to_pylist()
    rows = pq.read_table(tmp_path / "institutions.parquet").to_pylist()
    assert [row["round"] for row in rounds] == [1, 2]
    for row in rounds:
        own = [r for r in rows if r["round"] == row["round"]]
        assert [r["institution"] for r in own] == [p.name for p in plan.participants]
        for name in ("uplink_bytes", "downlink_bytes"):
            assert row[name] == sum(r[name] for r in own)
        weights = [r["specimens"] for r in own]
        assert row["loss"] == pytest.approx(np.average([r["loss"] for r in own], weights=weights))
        for r in own:
            specimens = plan.by_name[r["institution"]].specimens
            assert r["steps"] == 2 * -(-specimens // 16)
    assert summary.communication.uplink_bytes_total == sum(r["uplink_bytes"] for r in rounds)
    assert summary.accuracy["overall"] == rounds[-1]["accuracy"]
    pooled = sum(summary.accuracy[d] * n for d, n in plan.test.items()) / sum(plan.test.values())
    assert summary.accuracy["overall"] == pytest.approx(pooled)


def test_scaffold_sends_twice_as_much(tmp_path):
    plain = run(tiny(), tmp_path / "plain").communication
    double = run(tiny("strategy.kind=scaffold"), tmp_path / "double").communication
    assert plain.payload_bytes_per_round == plain.fp32_uplink_bytes_per_round
    assert double.payload_bytes_per_round == 2 * plain.payload_bytes_per_round
    # Messages have headers, of which there are as many as before.
    assert double.uplink_bytes_total == pytest.approx(2 * plain.uplink_bytes_total, rel=0.02)
    assert double.downlink_bytes_per_round == pytest.approx(
        2 * plain.downlink_bytes_per_round, rel=0.02
    )


def test_rounds_between_evaluations_are_not_scored_but_the_last_is(tmp_path):
    run(tiny("execution.evaluate_every=2", "training.rounds=3"), tmp_path)
    rows = pq.read_table(tmp_path / "rounds.parquet").to_pylist()
    assert [row["accuracy"] is None for row in rows] == [True, False, False]
