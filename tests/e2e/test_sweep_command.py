"""`python -m fedfuse_ray.sweep` as a user calls it: to its end, killed and resumed, wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from fedfuse_ray.cli import main as report
from fedfuse_ray.studies.sweeping.store import TIMES
from fedfuse_ray.sweep import main
from tests.support.processes.commands import ROOT, SECONDS, environment

SWEEP = """
base: tiny
paradigm: fedfuse
settings: {training.rounds: 12}
space:
  privacy.target_epsilon: [1, 8]
  privacy.clip_norm: [0.5, 1.0]
"""


def rows_of(folder):
    with pq.ParquetFile(folder / "trials.parquet") as file:
        return file.read().to_pylist()


def untimed(folder):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows_of(folder)]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("sweeps") / "small.yaml"
    path.write_text(SWEEP)
    return path


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory, ray_address):
    folder = tmp_path_factory.mktemp("whole")
    finished = start(source, "--out", folder, RAY_ADDRESS=ray_address)
    out, error = finished.communicate(timeout=SECONDS)
    assert finished.returncode == 0, error
    assert "Failed to fetch metrics" not in out + error
    (folder / "printed.txt").write_text(out)
    return folder


def start(*arguments, **values):
    return subprocess.Popen(
        [sys.executable, "-m", "fedfuse_ray.sweep", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(**values),
    )


@pytest.mark.ray
def test_a_sweep_writes_its_table_summary_and_page(whole):
    rows = rows_of(whole)
    assert [row["status"] for row in rows] == ["done"] * 4
    assert [row["privacy.target_epsilon"] for row in rows] == [1, 1, 8, 8]
    assert {row["rounds"] for row in rows} == {12}
    assert len({row["weights_sha256"] for row in rows}) == 4
    for row in rows:
        summary = json.loads((whole / "trials" / row["trial"] / "summary.json").read_text())
        assert summary["weights_sha256"] == row["weights_sha256"]
        assert summary["accuracy"]["medical"] == row["accuracy/medical"]
        assert row["epsilon"] <= row["privacy.target_epsilon"] * (1 + 1e-9)
        assert (whole / "trials" / row["trial"] / "report.html").is_file()
    told = json.loads((whole / "summary.json").read_text())
    assert told["best"]["accuracy"]["overall"] == max(row["accuracy"] for row in rows)
    assert told["selection"]["runs"] == 4
    assert told["selection"]["charged"] > 8 > told["selection"]["largest_alone"] - 1e-6
    printed = (whole / "printed.txt").read_text()
    assert told["selection"]["text"] in printed
    assert f"{told['selection']['charged']:.2f}" in (whole / "report.html").read_text()
    assert not (whole / "tune").exists()


@pytest.mark.ray
def test_report_writes_the_page_again(whole, capsys):
    before = (whole / "report.html").read_text()
    (whole / "report.html").unlink()
    trial = next((whole / "trials").glob("00-*"))
    (trial / "report.html").unlink()
    assert report(["report", str(whole)]) == 0
    assert (whole / "report.html").read_text() == before
    assert (trial / "report.html").is_file()
    assert str(whole / "report.html") in capsys.readouterr().out


@pytest.mark.ray
def test_killed_at_half_and_resumed_it_ends_the_same(source, whole, tmp_path, ray_address):
    process = start(source, "--out", tmp_path, RAY_ADDRESS=ray_address)
    try:
        deadline = time.monotonic() + SECONDS
        while len(list(tmp_path.glob("trials/*/outcome.json"))) < 2:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.kill()
        process.communicate()
    assert not (tmp_path / "summary.json").exists()
    kept = {p: p.stat().st_mtime_ns for p in tmp_path.glob("trials/*/outcome.json")}
    resumed = start("--resume", tmp_path, RAY_ADDRESS=ray_address)
    _, error = resumed.communicate(timeout=SECONDS)
    assert resumed.returncode == 0, error
    assert untimed(tmp_path) == untimed(whole)
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    again = json.loads((tmp_path / "summary.json").read_text())
    before = json.loads((whole / "summary.json").read_text())
    other = {"time": None, "total": None}  # the total is of what else was run beside it, too
    assert {**again, **other} == {**before, **other}


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ([], "FILE"),
        (["nowhere.yaml"], "FILE"),
        (["{source}", "--set", "space.training.rounds=[1, 0]"], "training.rounds"),
        (["{source}", "--set", "privacy.clip_norm=1"], "settings.privacy.clip_norm"),
        (["{source}", "--set", "base=unknown"], "PRESET"),
        (["{source}", "--resume", "."], "--resume"),
        (["--resume", "{empty}"], "--resume"),
    ],
)
def test_bad_input_is_one_line_before_ray_starts(arguments, field, source, tmp_path, capsys):
    given = [a.format(source=source, empty=tmp_path) for a in arguments]
    out = [] if "--resume" in given else ["--out", str(tmp_path / "out")]
    assert main([*given, *out]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {field}: ")
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()
