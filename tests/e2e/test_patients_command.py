"""Patients from the command line: generated, protected, verified, refused where they are cut."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.processes.commands import done, refused

SMALL = ("--executor", "serial", "--set", "data.image_size=16", "--set", "training.rounds=1")


def test_a_manifest_with_patients_runs_for_patients_and_a_cut_one_does_not(tmp_path):
    path, out = tmp_path / "m.parquet", tmp_path / "run"
    done("data", "generate", "tiny", "--set", "data.specimens_per_patient=4", "--out", path)
    assert "Patients of train: 9 at med-01" in " ".join(done("data", "describe", path).split())
    asked = ("run", "tiny", "--data", path, *SMALL, "--paradigm", "fedfuse")
    printed = done(*asked, "--set", "privacy.unit=patient", "--out", out)
    assert "per patient" in printed
    assert json.loads((out / "summary.json").read_text())["privacy"]["unit"] == "patient"
    done("verify", out)
    assert "a patient has up to 4 records: epsilon for a patient is" in done(
        *asked, "--out", tmp_path / "records"
    )

    table = pq.read_table(path)
    names, splits = table["patient_id"].to_pylist(), table["split"].to_pylist()
    whole, other = names[splits.index("train")], names[splits.index("validation")]
    cut = pa.array([whole if name == other else name for name in names])
    column = table.column_names.index("patient_id")
    pq.write_table(table.set_column(column, "patient_id", cut), path)
    said = refused("run", "tiny", "--data", path, *SMALL, "--out", tmp_path / "cut")
    assert f"patient_id: '{whole}': is in validation here and in train at row 1, a leak" in said
