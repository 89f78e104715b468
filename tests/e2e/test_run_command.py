"""`run`, `compare`, `report`, `schema`: the contracts that scripts rely on."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
import yaml

from tests.support.federations import rows_of, scores_of
from tests.support.processes.commands import done, fedfuse

FILES = {
    "config.yaml",
    "environment.json",
    "rounds.parquet",
    "institutions.parquet",
    "privacy_ledger.jsonl",
    "ledger_seal.json",
    "privacy_account.json",
    "summary.json",
    "report.html",
    "checkpoints",
    "evaluation.json",
}
SUMMARY = {
    "paradigm": str,
    "preset": str,
    "seed": int,
    "executor": str,
    "rounds": int,
    "accuracy": dict,
    "accuracy_by_modality": dict,
    "macro_f1": dict,
    "privacy": {
        "mode",
        "epsilon",
        "delta",
        "epsilon_by_institution",
        "noise_multiplier",
        "clip_norm",
        "sampling_rate",
        "steps",
        "unit",
        "adversary",
        "total_epsilon",
        "total_runs",
        "unprotected_runs",
    },
    "communication": {
        "uplink_bytes_per_round",
        "downlink_bytes_per_round",
        "uplink_bytes_total",
        "fp32_uplink_bytes_per_round",
        "codec",
        "payload_bytes_per_round",
    },
    "time": {"wall_seconds", "startup_seconds", "seconds_per_round", "simulated_seconds"},
    "weights_sha256": str,
}


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "run"
    printed = done("run", "tiny", "--executor", "serial", "--seed", "3", "--out", folder)
    return folder, printed


def test_a_run_writes_exactly_the_files_of_the_contract(tiny_run):
    folder, _ = tiny_run
    assert {path.name for path in folder.iterdir()} == FILES


def test_the_summary_has_exactly_the_keys_of_the_contract(tiny_run):
    summary = json.loads((tiny_run[0] / "summary.json").read_text())
    assert list(summary) == list(SUMMARY)
    for name, kind in SUMMARY.items():
        if isinstance(kind, set):
            assert set(summary[name]) == kind
        else:
            assert isinstance(summary[name], kind), name
    assert set(summary["accuracy"]) == {"overall", "medical", "materials"}
    assert set(summary["macro_f1"]) == {"overall", "medical", "materials"}
    assert set(summary["accuracy_by_modality"]) == {
        "ct",
        "mri",
        "electron_microscopy",
        "spectroscopy",
    }
    assert (summary["preset"], summary["seed"], summary["executor"]) == ("tiny", 3, "serial")
    assert (summary["paradigm"], summary["rounds"]) == ("fedfuse_nonprivate", 3)
    assert len(summary["weights_sha256"]) == 64


def test_the_tables_have_a_row_a_round_and_institution(tiny_run):
    rounds = pq.read_table(tiny_run[0] / "rounds.parquet")
    assert rounds["round"].to_pylist() == [1, 2, 3]
    rows = pq.read_table(tiny_run[0] / "institutions.parquet")
    assert rows["round"].to_pylist() == [1] * 3 + [2] * 3 + [3] * 3
    assert rows["institution"].to_pylist() == ["med-01", "med-02", "mat-01"] * 3
    assert (tiny_run[0] / "privacy_ledger.jsonl").read_text() == ""


def test_the_resolved_config_runs_to_the_same_result(tiny_run, tmp_path):
    folder, _ = tiny_run
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["seed"] == 3
    assert config["execution"]["executor"] == "serial"
    done("run", folder / "config.yaml", "--out", tmp_path / "again", "--no-progress")
    again = json.loads((tmp_path / "again" / "summary.json").read_text())
    first = json.loads((folder / "summary.json").read_text())
    assert again["weights_sha256"] == first["weights_sha256"]


def test_the_command_prints_the_result_and_where_it_is(tiny_run):
    folder, printed = tiny_run
    summary = json.loads((folder / "summary.json").read_text())
    assert f"weights_sha256: {summary['weights_sha256']}" in printed.splitlines()
    assert f"Report: {folder / 'report.html'}" in printed.splitlines()
    assert f"{summary['accuracy']['overall']:.1%}" in printed
    assert "round 3/3" in printed


def test_the_report_is_one_page_that_needs_no_network(tiny_run):
    page = (tiny_run[0] / "report.html").read_text(encoding="utf-8")
    assert page.lower().startswith("<!doctype html>")
    assert "plotly" in page
    assert '<script src="http' not in page
    assert '<link href="http' not in page


def test_the_environment_names_versions(tiny_run):
    environment = json.loads((tiny_run[0] / "environment.json").read_text())
    assert "torch" in json.dumps(environment)


@pytest.mark.ray
def test_ray_started_by_the_command_gives_the_same(tiny_run, tmp_path):
    folder, printed = tiny_run
    out = tmp_path / "ray"
    again = done("run", "tiny", "--executor", "ray", "--seed", "3", "--out", out, "--no-progress")

    def digest(text):
        return [line for line in text.splitlines() if line.startswith("weights_sha256")]

    assert digest(again) == digest(printed) != []
    assert {path.name for path in out.iterdir()} == FILES
    assert scores_of(out) == scores_of(folder)
    assert rows_of(out, "institutions.parquet") == rows_of(folder, "institutions.parquet")
    assert json.loads((out / "summary.json").read_text())["executor"] == "ray"


@pytest.mark.ray
def test_what_the_cluster_does_not_have_fails_with_one_line(ray_address, tmp_path):
    finished = fedfuse(
        *("run", "tiny", "--executor", "ray", "--out", tmp_path / "x"),
        *("--set", "execution.num_gpus_per_institution=1"),
        RAY_ADDRESS=ray_address,
    )
    assert finished.returncode == 1
    (line,) = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert "GPUs are short" in line
    assert "execution.num_gpus_per_institution=0" in line
    assert "Traceback" not in finished.stderr


def test_without_out_the_folder_is_named_by_preset_and_paradigm(tmp_path):
    command = ("run", "tiny", "--executor", "serial", "--paradigm", "isolated", "--no-progress")
    finished = fedfuse(*command, cwd=tmp_path)
    assert finished.returncode == 0
    summary = json.loads((tmp_path / "runs" / "tiny-isolated" / "summary.json").read_text())
    assert summary["paradigm"] == "isolated"
    # Without progress only the result is printed.
    assert finished.stderr == ""
    assert "Training" not in finished.stdout
    assert f"weights_sha256: {summary['weights_sha256']}" in finished.stdout


def test_compare_puts_paradigms_side_by_side(tmp_path):
    names = ["centralized", "isolated", "federated", "fedfuse_nonprivate"]
    out = tmp_path / "comparison"
    printed = done(
        *("compare", "tiny", "--executor", "serial", "--paradigms", ",".join(names)),
        *("--set", "training.rounds=2", "--out", out, "--no-progress"),
    )
    comparison = json.loads((out / "comparison.json").read_text())
    assert list(comparison) == names
    for name in names:
        assert name in printed
        assert list(comparison[name]) == list(SUMMARY)
        assert comparison[name]["paradigm"] == name
        assert comparison[name] == json.loads((out / name / "summary.json").read_text())
        assert (out / name / "report.html").is_file()
    assert {path.name for path in out.iterdir()} == {*names, "comparison.json", "report.html"}
    (out / "report.html").unlink()
    done("report", out)
    assert (out / "report.html").is_file()


def test_a_report_is_written_again_from_its_folder(tiny_run):
    page = tiny_run[0] / "report.html"
    page.unlink()
    assert done("report", tiny_run[0]) == f"Report: {page}\n"
    assert page.stat().st_size > 10_000


def test_the_schema_is_json_for_editors():
    schema = json.loads(done("schema"))
    assert {"extends", "training", "strategy"} <= set(schema["properties"])


def test_an_institution_that_fails_is_named_with_its_traceback(tmp_path):
    cache = tmp_path / "cache"
    settings = ("tiny", "--executor", "serial", "--no-progress")
    done("data", "describe", "tiny", FEDFUSE_RAY_CACHE=str(cache))
    (table,) = cache.rglob("train/med-02.arrow")
    table.write_bytes(table.read_bytes()[:200])
    finished = fedfuse("run", *settings, "--out", tmp_path / "run", FEDFUSE_RAY_CACHE=str(cache))
    assert finished.returncode == 1
    assert finished.stderr.startswith("error: institution med-02 failed:\nTraceback")
    assert not (tmp_path / "run" / "summary.json").exists()


def test_a_folder_that_a_file_stands_for_is_status_1_and_one_line(tmp_path):
    (tmp_path / "occupied").write_text("a file where the folder should go")
    finished = fedfuse("run", "tiny", "--executor", "serial", "--out", tmp_path / "occupied" / "x")
    assert finished.returncode == 1
    assert str(tmp_path / "occupied") in finished.stderr
    assert finished.stderr.count("\n") == 1
