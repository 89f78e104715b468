"""`data describe`, `generate`, `import`: from other collections to a run."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq

from tests.support.processes.commands import done, refused


def test_describe_counts_a_presets_specimens():
    printed = done("data", "describe", "tiny")
    for name in ("med-01", "med-02", "mat-01", "medical", "materials"):
        assert name in printed
    assert "ct, mri" in printed


def test_generated_images_are_a_manifest_that_runs(tmp_path):
    path = tmp_path / "images.parquet"
    printed = done("data", "generate", "tiny", "--out", path, "--seed", "1")
    rows = pq.ParquetFile(path).metadata.num_rows
    assert printed == f"{path}: {rows} images\n"
    described = done("data", "describe", path)
    assert f"{path}: {rows} images" in described
    assert "med-02" in described
    out = tmp_path / "run"
    settings = ("--set", "data.image_size=16", "--set", "training.rounds=1")
    done("run", "tiny", "--data", path, *settings, "--executor", "serial", "--out", out)
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary["accuracy"]) == {"overall", "medical", "materials"}


def test_a_collection_is_dealt_over_institutions_and_runs(tmp_path):
    generator = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 40), ("val", 10), ("test", 10)):
        labels = generator.integers(0, 2, (count, 1))
        images = (labels[:, :, None] * 100 + generator.integers(0, 80, (count, 28, 28))).astype(
            np.uint8
        )
        arrays |= {f"{split}_images": images, f"{split}_labels": labels}
    np.savez(tmp_path / "toy.npz", **arrays)
    printed = done(
        *("data", "import", tmp_path / "toy.npz", "--out", tmp_path / "manifest"),
        *("--institutions", "2", "--domain", "medical", "--modality", "ct"),
    )
    manifest = printed.splitlines()[0].removeprefix("Manifest: ")
    assert f"run {manifest}" in printed
    out = tmp_path / "run"
    settings = ("--set", "data.image_size=16", "--set", "training.rounds=1")
    done("run", manifest, *settings, "--executor", "serial", "--out", out, "--no-progress")
    assert json.loads((out / "summary.json").read_text())["accuracy"].keys() == {
        "overall",
        "medical",
    }


def test_what_cannot_be_generated_or_imported_is_named(tmp_path):
    assert "--out" in refused("data", "generate", "tiny", "--out", tmp_path / "x.csv")
    path = tmp_path / "m.parquet"
    assert "no such file" in refused("data", "describe", path)
    of = ("--out", tmp_path / "o", "--institutions", "2")
    assert "domain" in refused("data", "import", tmp_path / "no.npz", *of)
    named = (*of, "--domain", "medical", "--modality", "ct")
    assert str(tmp_path / "no.npz") in refused("data", "import", tmp_path / "no.npz", *named)
