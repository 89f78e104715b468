"""Every benchmark still runs, and the comparison sees a regression."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import all as everything
from benchmarks import compare, machine, results, rounds
from tests.support.paths import ROOT


def smoke(name: str, folder: Path) -> dict[str, Any]:
    """Run a benchmark with its smallest settings and return what it wrote."""
    out = folder / f"{name}.json"
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--out", str(out)]
    settings = os.environ | {"FEDFUSE_RAY_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=folder, env=settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    tree: dict[str, Any] = json.loads(out.read_text())
    assert tree["benchmark"] == name
    assert tree["hardware"]["usable_cores"]
    assert all(found["median"] > 0 for found in tree["ratios"].values())
    assert compare.read(folder)[name] == tree
    return tree


def ratio(median: float, spread: float = 0.01) -> dict[str, Any]:
    return {"median": median, "low": median - spread, "high": median + spread, "repeats": 5}


def result(benchmark: str = "rounds", **ratios: dict[str, Any]) -> dict[str, dict[str, Any]]:
    tree = {"benchmark": benchmark, "config": {"preset": "demo"}, "ratios": ratios}
    return {benchmark: tree}


def verdicts(latest: Any, baseline: Any) -> list[str]:
    return [finding.verdict for finding in compare.compare(latest, baseline, 0.15)]


@pytest.mark.parametrize(
    "name",
    [
        "phantoms",
        "secure_aggregation",
        "codecs",
        "compression",
        "network",
        "encryption",
        pytest.param("adaptive_privacy", marks=pytest.mark.slow),
        pytest.param("correlated_noise", marks=pytest.mark.slow),
    ],
)
def test_library_benchmarks_run(name: str, tmp_path: Path) -> None:
    assert smoke(name, tmp_path)["ratios"]


@pytest.mark.slow
@pytest.mark.ray
def test_sweep_sees_every_pause(tmp_path: Path) -> None:
    found = smoke("sweep", tmp_path)
    assert found["details"]["trials"] == 6
    assert found["ratios"]["pause/trial"]["repeats"] == 6 - found["details"]["side by side"]


@pytest.mark.ray
def test_rounds_runs_and_all_three_agree(tmp_path: Path) -> None:
    tree = smoke("rounds", tmp_path)
    assert set(tree["ratios"]) == {
        f"ray/{other} {what}"
        for other in ("ideal", "serial")
        for what in ("training", "training+evaluation")
    }
    assert set(tree["targets"]) <= set(tree["ratios"])


@pytest.mark.parametrize("preset", ["demo", "paper", "tiny"])
def test_rounds_measures_what_the_ideal_can_run(preset: str) -> None:
    chosen = rounds.plain(preset, 3)
    assert not chosen.privacy.enabled
    assert chosen.strategy.kind != "scaffold"
    assert (chosen.compression.codec, chosen.compression.feedback) == ("fp32", "none")
    assert chosen.compression.downlink.codec == "fp32"


@pytest.mark.slow
@pytest.mark.ray
def test_startup_tells_every_stage(tmp_path: Path) -> None:
    seconds = smoke("startup", tmp_path)["seconds"]
    stages = {name.removeprefix("auto: ") for name in seconds if name.startswith("auto: ")}
    assert stages == {
        "imports",
        "config, dataset, plan",
        "ray.init",
        "placement",
        "actors ready",
        "initial weights at the server",
        "first round",
        "all",
    }


@pytest.mark.slow
@pytest.mark.ray
def test_memory_sees_driver_and_actors(tmp_path: Path) -> None:
    details = smoke("memory", tmp_path)["details"]
    at_peak = details["at_peak"]
    assert {"driver", "raylet", "gcs_server"} <= set(at_peak)
    whole = sum(part["megabytes"] for part in at_peak.values())
    assert whole * 1e6 == pytest.approx(details["peak_gib"] * 2**30, rel=0.01)


@pytest.mark.slow
@pytest.mark.ray
def test_soak_reads_every_process_busy_and_idle(tmp_path: Path) -> None:
    details = smoke("soak", tmp_path)["details"]
    read = {name.partition(" (")[0]: line for name, line in details.items() if "(" in name}
    assert {"driver", "raylet", "gcs_server", "ray::ParameterServerActor"} <= set(read)
    assert read["raylet"]["idle"] is not None


def test_planted_regression_is_flagged() -> None:
    assert verdicts(result(a=ratio(1.30)), result(a=ratio(1.00))) == ["worse"]
    assert verdicts(result(a=ratio(1.10)), result(a=ratio(1.00))) == ["same"]
    assert verdicts(result(a=ratio(0.70)), result(a=ratio(1.00))) == ["better"]


def test_a_change_within_the_spread_is_noise() -> None:
    assert verdicts(result(a=ratio(1.30, spread=0.4)), result(a=ratio(1.00))) == ["same"]


def test_what_vanished_or_misses_its_target_is_flagged() -> None:
    latest = result(a=ratio(1.2))
    latest["rounds"]["targets"] = {"a": 1.15}
    assert verdicts(latest, result(a=ratio(1.2))) == ["over target"]
    assert verdicts(result(a=ratio(1.0)), result(a=ratio(1.0), b=ratio(1.0))) == ["same", "missing"]


def test_only_the_same_settings_are_compared() -> None:
    baseline = result(a=ratio(1.0))
    baseline["rounds"]["config"] = {"preset": "paper"}
    assert verdicts(result(a=ratio(9.0)), baseline) == ["other settings"]
    assert verdicts(result(a=ratio(9.0)), {}) == ["new"]
    baseline["rounds"]["config"] = {"preset": "demo", "repeats": 100}
    assert verdicts(result(a=ratio(9.0)), baseline) == ["worse"]


def test_a_disturbed_result_is_neither_judged_nor_accepted(tmp_path: Path) -> None:
    latest = result(a=ratio(9.0))
    latest["rounds"]["details"] = {"quiet": False}
    assert verdicts(latest, result(a=ratio(1.0))) == ["too noisy"]
    everything.accept(latest, tmp_path / "latest", tmp_path / "baseline")
    assert not list((tmp_path / "baseline").iterdir())


def test_exit_status_follows_the_findings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, median in {"latest": 1.4, "baseline": 1.0}.items():
        (tmp_path / name).mkdir()
        tree = result(a=ratio(median))["rounds"]
        (tmp_path / name / "rounds.json").write_text(json.dumps(tree))
    folders = ["--latest", str(tmp_path / "latest"), "--baseline", str(tmp_path / "baseline")]
    assert compare.main(folders) == 1
    assert "rounds: a" in capsys.readouterr().out
    assert compare.main([*folders, "--tolerance", "0.5"]) == 0


def test_a_file_that_is_no_result_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(ValueError, match=r"x\.json"):
        compare.read(tmp_path)


def test_all_runs_what_is_named_and_accepts_it(tmp_path: Path) -> None:
    latest, baseline = tmp_path / "latest", tmp_path / "baseline"
    folders = ["--latest", str(latest), "--baseline", str(baseline)]
    status = everything.main(["--quick", "--only", "secure_aggregation", "--accept", *folders])
    assert status == 0
    assert [path.name for path in baseline.iterdir()] == ["secure_aggregation.json"]


def test_committed_baselines_are_results_of_known_benchmarks() -> None:
    assert set(compare.read(compare.BASELINE)) <= set(everything.BENCHMARKS)


def test_summary_and_refusal_of_what_is_not_a_number(tmp_path: Path) -> None:
    found = results.summary([4.0, 1.0, 2.0, 3.0, 100.0])
    assert (found["median"], found["low"], found["high"], found["repeats"]) == (3.0, 2.0, 4.0, 5)
    broken = results.Result("x", {}, {"a": [float("nan")]})
    with pytest.raises(ValueError, match="JSON"):
        results.publish(broken, tmp_path / "x.json")
    assert not (tmp_path / "x.json").exists()


def test_memory_of_a_child_is_seen() -> None:
    program = "import sys; held = bytearray(80_000_000); print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert child.pid in machine.tree(os.getpid())
        with machine.MemoryMeter(child.pid, 0.01) as meter:
            deadline = time.monotonic() + 10
            while not meter.samples and time.monotonic() < deadline:
                time.sleep(0.01)
        assert child.stdin is not None
        child.stdin.close()
    assert meter.peak_bytes > 80_000_000
    assert machine.pss_bytes(child.pid) == 0
