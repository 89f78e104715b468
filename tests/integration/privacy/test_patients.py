"""Whole runs that protect patients: one result everywhere, charges that verify, a canary audit."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedfuse_ray.audit import audit, of_run
from fedfuse_ray.data.exporting import write_manifest
from fedfuse_ray.data.phantoms import generate
from fedfuse_ray.errors import InputError
from fedfuse_ray.privacy.accounting.epsilon import epsilon
from fedfuse_ray.privacy.accounting.ledger import read_ledger
from fedfuse_ray.runs.running import run
from fedfuse_ray.runs.verifying import verify_run
from tests.support.federations import rows_of, scores_of, tiny

PATIENTS = ("data.specimens_per_patient=4", "privacy.unit=patient")
LEDGER = "privacy_ledger.jsonl"


def privacy_of(folder):
    return json.loads((folder / "summary.json").read_text())["privacy"]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Images in which a patient has 4 specimens: 2 at each of two institutions."""
    experiment = tiny("data.specimens_per_patient=2")
    header, parts = generate(experiment.data, experiment.institutions, seed=0)
    path = tmp_path_factory.mktemp("patients") / "m.parquet"
    write_manifest(path, header, parts, patients=True)
    table = pq.read_table(path)
    joined = [name.replace("med-02", "med-01") for name in table["patient_id"].to_pylist()]
    column = table.column_names.index("patient_id")
    pq.write_table(table.set_column(column, "patient_id", pa.array(joined)), path)
    return path


def on(manifest, *settings, paradigm="fedfuse"):
    data = f"data={{kind: manifest, path: '{manifest}', image_size: 16, signal_length: 64}}"
    return tiny(data, "institutions=[]", *settings, paradigm=paradigm)


def test_a_run_charges_and_tells_patients(tmp_path):
    run(tiny(*PATIENTS, paradigm="fedfuse"), tmp_path)
    privacy = privacy_of(tmp_path)
    assert (privacy["unit"], "warning" in privacy) == ("patient", False)
    assert privacy["epsilon"] <= 1.0
    assert {event.unit for event in read_ledger(tmp_path / LEDGER)} == {"patient"}
    rows = rows_of(tmp_path, "institutions.parquet")
    assert all(row["patients"] == -(-row["specimens"] // 4) for row in rows)
    assert all(check.passed is not False for check in verify_run(tmp_path))


def test_batches_of_patients_set_rates_and_steps(tmp_path):
    run(tiny(*PATIENTS, "training.batch_size=2", paradigm="federated_dp"), tmp_path)
    patients = {r["institution"]: r["patients"] for r in rows_of(tmp_path, "institutions.parquet")}
    for event in read_ledger(tmp_path / LEDGER):
        assert event.sampling_rate == pytest.approx(2 / patients[event.institution])
        assert event.count == -(-patients[event.institution] // 2)
    assert all(check.passed is not False for check in verify_run(tmp_path))


def test_records_and_patients_have_different_results(tmp_path):
    settings = ("data.specimens_per_patient=4", "training.rounds=1")
    records = run(tiny(*settings, paradigm="fedfuse"), tmp_path / "r")
    patients = run(tiny(*settings, "privacy.unit=patient", paradigm="fedfuse"), tmp_path / "p")
    assert records.weights_sha256 != patients.weights_sha256


def test_patients_that_nobody_knows_cant_be_protected(tmp_path):
    with pytest.raises(InputError, match="generated specimens have no patients; set data"):
        run(tiny("privacy.unit=patient", paradigm="fedfuse"), tmp_path)
    assert not (tmp_path / "config.yaml").exists()


def test_a_patient_at_two_institutions_is_refused(manifest, tmp_path):
    said = r"patient_id: 'med-01-train-p\d+': is trained on at med-01 and med-02, .*_per_unit=2"
    with pytest.raises(InputError, match=said):
        run(on(manifest, "privacy.unit=patient"), tmp_path / "run")
    local = "privacy.mode=record-local"
    with pytest.raises(InputError, match=r"use privacy\.mode=record-distributed"):
        run(on(manifest, "privacy.unit=patient", local), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def charged(manifest, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "charged"
    run(on(manifest, "privacy.unit=patient", "privacy.institutions_per_unit=2"), folder)
    return folder


def test_or_is_charged_by_the_group_bound(charged):
    privacy, ledger = privacy_of(charged), read_ledger(charged / LEDGER)
    assert privacy["unit"] == "patient"
    assert privacy["epsilon"] == pytest.approx(1.0, rel=1e-3)
    assert epsilon(ledger.of("med-01"), 1e-5) == pytest.approx(privacy["epsilon"])
    # Twice the noise of one institution, charged as if there were half of it.
    assert privacy["clip_norm"] == pytest.approx(2 * 0.5)
    assert privacy["noise_multiplier"] == pytest.approx(ledger.events[0].noise_multiplier)
    assert all(check.passed is not False for check in verify_run(charged))


@pytest.mark.slow
def test_and_canary_patients_confirm_it(charged):
    found = audit(of_run(charged, lambda text: None), ("canaries",))
    assert found.passed
    assert 0.1 < found.canaries.lower_bound <= 1.0
    assert found.to_json()["unit"] == "patient"


def test_a_guarantee_for_records_says_what_it_leaves_of_a_patient(manifest, tmp_path):
    told = []

    class Telling:
        def stage(self, text):
            told.append(text)

        def advanced(self, *given):
            pass

    run(on(manifest), tmp_path, progress=Telling())
    warning = privacy_of(tmp_path)["warning"]
    assert warning.startswith("a patient has up to 4 records at 2 institutions: epsilon for a pa")
    assert f"Warning: {warning}" in told
    ledger = read_ledger(tmp_path / LEDGER)
    quarter = [e.noise_multiplier / 4 for e in ledger.of("med-01")]
    together = (sum(s**-2 for s in quarter)) ** -0.5
    event = ledger.events[0].__class__(1, "a", (), "gaussian", together)
    assert f"is {epsilon([event], 1e-5):.2f}, since privacy.unit=record" in warning


def test_a_specimen_of_two_institutions_can_be_charged_too(manifest, tmp_path):
    table = pq.read_table(manifest)
    shared = [
        {**row, "institution": "med-02"}
        for row in table.to_pylist()
        if row["specimen_id"] == "med-01-train-000000" and row["modality"] == "ct"
    ]
    assert shared
    path = tmp_path / "m.parquet"
    pq.write_table(pa.concat_tables([table, pa.Table.from_pylist(shared, table.schema)]), path)
    with pytest.raises(InputError, match=r"specimen_id: 'med-01-train-000000': is trained on at"):
        run(on(path), tmp_path / "run")
    summary = run(on(path, "privacy.institutions_per_unit=2"), tmp_path / "run")
    assert summary.privacy.unit == "record"
    assert summary.privacy.epsilon == pytest.approx(1.0, rel=1e-3)


@pytest.mark.ray
@pytest.mark.parametrize("per_actor", ["auto", 1])
def test_ray_gives_what_this_process_gives(ray_address, tmp_path, per_actor):
    settings = (*PATIENTS, "privacy.records_per_patient=3", "privacy.sampling_rate=0.7")
    layout = (f"execution.institutions_per_actor={per_actor}", "execution.executor=ray")
    run(tiny(*settings, paradigm="fedfuse"), tmp_path / "serial")
    run(tiny(*settings, *layout, paradigm="fedfuse"), tmp_path / "ray")
    assert scores_of(tmp_path / "serial") == scores_of(tmp_path / "ray")
    for table in ("rounds.parquet", "institutions.parquet"):
        assert rows_of(tmp_path / "serial", table) == rows_of(tmp_path / "ray", table)
