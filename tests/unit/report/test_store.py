from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from fedfuse_ray import files
from fedfuse_ray.errors import InputError
from fedfuse_ray.report import (
    RoundRow,
    RunStore,
    read_comparison,
    read_run,
    write_comparison,
    write_report,
)
from fedfuse_ray.report.rows import LATER
from fedfuse_ray.report.store import read_refused
from tests.support.pages.report_sample import (
    evaluation,
    institution_rows,
    round_row,
    summary,
    write_sample,
)


def make_old(folder):
    """Take away the columns that came later."""
    for name in ("rounds.parquet", "institutions.parquet"):
        table = pq.read_table(folder / name)
        pq.write_table(
            table.drop_columns([c for c in LATER if c in table.column_names]), folder / name
        )


def test_rows_come_back_as_they_were_written(tmp_path):
    run = read_run(write_sample(tmp_path, rounds=2, private=True))
    first = run.rounds.to_pylist()[0]
    expected = round_row(1, private=True)
    assert first["accuracy/materials"] == expected.domain_accuracy["materials"]
    assert (first["epsilon"], first["uplink_bytes"]) == (expected.epsilon, expected.uplink_bytes)
    assert run.institutions.to_pylist()[1]["modalities"] == "ct,mri"
    assert run.summary.privacy.epsilon == 1.0
    assert run.config.startswith("preset: demo")
    assert run.environment["versions"] == {"python": "3.11.7"}


def test_the_files_can_be_read_after_every_round(tmp_path):
    store = RunStore(tmp_path)
    store.start("{}", {})
    for number in (1, 2, 3):
        store.append_round(round_row(number), institution_rows(number))
        assert pq.read_table(tmp_path / "rounds.parquet")["round"].to_pylist()[-1] == number
        assert pq.read_table(tmp_path / "institutions.parquet").num_rows == 15 * number


def test_nulls_stay_nulls_and_a_diverged_loss_stays_nan(tmp_path):
    store = RunStore(tmp_path)
    store.start("{}", {})
    store.append_round(RoundRow(1, float("nan"), 1.0, 1.0, 0.0, 0.0, 0.0, 5, 6, 15), [])
    row = pq.read_table(tmp_path / "rounds.parquet").to_pylist()[0]
    assert np.isnan(row["loss"])
    assert row["accuracy"] is None
    assert row["epsilon"] is None


def test_a_domain_that_is_first_scored_later_gets_its_column(tmp_path):
    store = RunStore(tmp_path)
    store.start("{}", {})
    store.append_round(round_row(1, domains=()), [])
    store.append_round(round_row(2, domains=("medical",)), [])
    column = pq.read_table(tmp_path / "rounds.parquet")["accuracy/medical"].to_pylist()
    assert column[0] is None
    assert column[1] is not None


def test_a_round_out_of_order_is_refused(tmp_path):
    store = RunStore(tmp_path)
    store.append_round(round_row(3), [])
    with pytest.raises(ValueError, match="round 3 does not follow 3"):
        RunStore(tmp_path).append_round(round_row(3), [])
    with pytest.raises(ValueError, match="another round"):
        store.append_round(round_row(4), institution_rows(5))


def test_a_resumed_run_keeps_the_rows_up_to_its_checkpoint(tmp_path):
    write_sample(tmp_path, rounds=5)
    store = RunStore(tmp_path)
    store.write_ledger([{"round": 1}, {"round": 5}, {"event": "setup"}])
    store.truncate(3)
    assert pq.read_table(tmp_path / "rounds.parquet")["round"].to_pylist() == [1, 2, 3]
    assert set(pq.read_table(tmp_path / "institutions.parquet")["round"].to_pylist()) == {1, 2, 3}
    lines = (tmp_path / "privacy_ledger.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"round": 1}, {"event": "setup"}]
    with pytest.raises(InputError, match=r"summary\.json.*--resume"):
        read_run(tmp_path)
    store.append_round(round_row(4), institution_rows(4))
    assert pq.read_table(tmp_path / "rounds.parquet").num_rows == 4


def test_a_fresh_start_leaves_nothing_of_an_older_run(tmp_path):
    write_sample(tmp_path, rounds=2)
    RunStore(tmp_path).start("{}", {})
    assert not (tmp_path / "summary.json").exists()
    assert pq.read_table(tmp_path / "rounds.parquet").num_rows == 0


def test_a_failed_write_keeps_the_older_file(tmp_path, monkeypatch):
    store = RunStore(tmp_path)
    store.append_round(round_row(1), institution_rows(1))

    def full_disk(_):
        raise OSError("no space left")

    monkeypatch.setattr(files.os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        store.append_round(round_row(2), institution_rows(2))
    assert pq.read_table(tmp_path / "institutions.parquet").num_rows == 15
    assert sorted(p.name for p in tmp_path.iterdir()) == ["institutions.parquet", "rounds.parquet"]
    monkeypatch.undo()
    store.append_round(round_row(2), institution_rows(2))
    assert pq.read_table(tmp_path / "rounds.parquet").num_rows == 2


def test_a_folder_that_looks_like_a_partition_gains_no_column(tmp_path):
    run = read_run(write_sample(tmp_path / "lr=0.1", rounds=1))
    assert "lr" not in run.rounds.column_names


@pytest.mark.parametrize("key", sorted(summary()))
def test_a_summary_without_a_key_is_not_written(tmp_path, key):
    broken = summary()
    del broken[key]
    with pytest.raises(ValidationError, match=key):
        RunStore(tmp_path).write_summary(broken)
    assert not (tmp_path / "summary.json").exists()


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("accuracy",), {"medical": 0.5}, "'overall' is missing"),
        (("accuracy", "overall"), 1.2, "less than or equal to 1"),
        (("accuracy", "overall"), float("nan"), "finite"),
        (("privacy", "mode"), "record-local", "needs its number"),
        (("time", "wall"), 3.0, "Extra inputs"),
        (("rounds",), -1, "greater than or equal to 0"),
    ],
)
def test_a_summary_that_breaks_the_contract_is_refused(tmp_path, path, value, said):
    broken = summary()
    node = broken
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    with pytest.raises(ValidationError, match=said):
        RunStore(tmp_path).write_summary(broken)


def test_a_copy_of_a_summary_is_checked_again(tmp_path):
    good = RunStore(tmp_path).write_summary(summary())
    with pytest.raises(ValidationError, match="rounds"):
        RunStore(tmp_path).write_summary(good.model_copy(update={"rounds": -1}))


def test_the_summary_has_the_keys_of_the_contract_in_order(tmp_path):
    RunStore(tmp_path).write_summary(summary())
    written = json.loads((tmp_path / "summary.json").read_text())
    assert list(written) == list(summary())
    assert written == summary()


def test_a_confusion_that_does_not_fit_its_classes_is_refused(tmp_path):
    broken = evaluation()
    broken["domains"]["medical"]["views"][0]["confusion"].pop()
    with pytest.raises(ValidationError, match=r"views\.ct\.confusion: must be 6 x 6"):
        RunStore(tmp_path).write_evaluation(broken)


NAMES = ["config.yaml", "environment.json", "rounds.parquet", "institutions.parquet"]
NAMES += ["evaluation.json", "summary.json"]


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named_with_its_remedy(tmp_path, name):
    write_sample(tmp_path, rounds=1)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match="missing") as caught:
        read_run(tmp_path)
    assert caught.value.field == str(tmp_path / name)
    assert "--resume" in caught.value.remedy


@pytest.mark.parametrize("name", [*NAMES[1:], "privacy_ledger.jsonl"])
@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe\x00"])
def test_a_broken_file_is_named(tmp_path, name, content):
    write_sample(tmp_path, rounds=1)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_run(tmp_path)
    assert name in caught.value.field
    assert "\n" not in str(caught.value)


def test_a_table_of_another_kind_is_named(tmp_path):
    write_sample(tmp_path, rounds=1)
    (tmp_path / "rounds.parquet").write_bytes((tmp_path / "institutions.parquet").read_bytes())
    with pytest.raises(InputError, match="no column seconds"):
        read_run(tmp_path)


def test_an_older_folder_reads_with_the_defaults_of_later_columns(tmp_path):
    write_sample(tmp_path, rounds=2, private=True)
    make_old(tmp_path)
    run = read_run(tmp_path)
    first = run.institutions.to_pylist()[0]
    assert {name: first[name] for name in LATER if name != "simulated_start"} == {
        "status": "sent",
        "started": 0.0,
        "download_seconds": 0.0,
        "compute_seconds": 0.0,
        "upload_seconds": 0.0,
        "payload_bytes": 0,
        "staleness": 0,
        "compression": "",
        "patients": 0,
    }
    assert run.rounds["simulated_start"].to_pylist() == [0.0, 0.0]
    assert run.rounds["accuracy/medical"].null_count == 0
    assert write_report(tmp_path).is_file()


def test_an_older_folder_is_resumed(tmp_path):
    write_sample(tmp_path, rounds=3)
    make_old(tmp_path)
    store = RunStore(tmp_path)
    store.truncate(2)
    store.append_round(round_row(3, private=True), institution_rows(3, private=True))
    rounds = pq.read_table(tmp_path / "rounds.parquet")
    assert rounds["simulated_start"].to_pylist() == [0.0, 0.0, 12.5]
    institutions = pq.read_table(tmp_path / "institutions.parquet")
    assert institutions["status"].to_pylist()[29:] == ["sent"] * 15 + ["late"]


def test_an_older_summary_reads_without_the_bytes_of_updates_alone(tmp_path):
    write_sample(tmp_path, rounds=1, private=True)
    old = json.loads((tmp_path / "summary.json").read_text())
    del old["communication"]["payload_bytes_per_round"]
    (tmp_path / "summary.json").write_text(json.dumps(old))
    assert read_run(tmp_path).summary.communication.payload_bytes_per_round == 0.0


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        read_run(tmp_path / "nowhere")


def test_a_comparison_survives_a_round_trip(tmp_path):
    comparison = {name: summary(paradigm=name) for name in ("centralized", "isolated")}
    written = write_comparison(tmp_path, comparison)
    assert read_comparison(tmp_path) == written
    assert list(json.loads((tmp_path / "comparison.json").read_text())) == list(comparison)
    del comparison["isolated"]["time"]
    (tmp_path / "comparison.json").write_text(json.dumps(comparison))
    with pytest.raises(InputError, match=r"isolated.*time"):
        read_comparison(tmp_path)


def test_what_was_refused_is_kept_and_forgotten_with_its_round(tmp_path):
    store = RunStore(tmp_path)
    store.start("{}", {})
    store.append_round(round_row(1), institution_rows(1))
    assert not (tmp_path / "refused.jsonl").exists()
    store.append_round(round_row(2), institution_rows(2), [("med-01", "altered")])
    store.append_round(round_row(3), institution_rows(3), [("eve", "unknown")])
    assert [line["round"] for line in read_refused(tmp_path)] == [2, 3]
    store.truncate(2)
    assert read_refused(tmp_path) == ({"round": 2, "institution": "med-01", "reason": "altered"},)
    assert store.last_round == 2
    store.start("{}", {})
    assert read_refused(tmp_path) == ()
    assert store.last_round == 0
