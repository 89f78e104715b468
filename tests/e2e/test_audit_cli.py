"""`audit` as a user calls it: on a preset, on a finished run, and on one that lies."""

from __future__ import annotations

import json
import re

import pytest
import typer

from fedfuse_ray.commands.audit import audit_command
from fedfuse_ray.privacy.accounting.ledger import Ledger, read_ledger
from fedfuse_ray.runs.running import run
from fedfuse_ray.terminal import exit_status
from tests.support.federations import tiny


def audit(*arguments):
    """Return the exit status of the command."""
    app = typer.Typer()
    app.command()(audit_command)
    return exit_status(lambda: app([*map(str, arguments)], standalone_mode=False))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    run(tiny(paradigm="fedfuse"), folder)
    return folder


def test_a_preset_is_trained_attacked_and_passed(tmp_path, capsys):
    assert audit("tiny", "--quick", "--no-progress", "--out", tmp_path) == 0
    assert "passed" in capsys.readouterr().out
    found = json.loads((tmp_path / "audit.json").read_text())
    assert found["passed"] is True
    assert found["paradigm"] == "fedfuse"
    assert 0 < found["canaries"]["lower_bound"] < found["epsilon"] <= 1.0 + 1e-6
    assert {m["attack"] for m in found["membership"]} == {"loss threshold", "LiRA"}
    assert found["membership_limit"] == pytest.approx(0.0272, abs=1e-3)
    views = [leak["view"] for leak in found["inversion"]["images"]["leaks"]]
    assert views == ["raw", "clipped", "noise share", "secure sum", "raw", "secure sum"]
    page = (tmp_path / "audit.html").read_text()
    assert page.count("data:image/png;base64,") >= 5
    assert not re.search(r"<(script|img|link)[^>]+(src|href)=.https?:", page)


def test_a_finished_run_is_audited_in_its_own_folder(finished):
    assert audit(finished, "--attacks", "canaries,membership", "--quick", "--no-progress") == 0
    found = json.loads((finished / "audit.json").read_text())
    assert found["canaries"]["passed"] is True
    assert found["rounds"] == 3
    assert found["inversion"] == {"images": None, "features": []}


def test_a_ledger_that_claims_too_little_fails(finished, tmp_path, capsys):
    ledger = read_ledger(finished / "privacy_ledger.jsonl")
    from dataclasses import replace

    milder = [replace(e, noise_multiplier=40 * e.noise_multiplier) for e in ledger.events]
    Ledger(tuple(milder)).write(finished / "privacy_ledger.jsonl")
    try:
        status = audit(finished, "--attacks", "canaries", "--no-progress", "--out", tmp_path)
    finally:
        ledger.write(finished / "privacy_ledger.jsonl")
    assert status == 1
    assert "epsilon is at least" in capsys.readouterr().err
    assert "failed" in (tmp_path / "audit.html").read_text()


def test_the_same_seed_finds_the_same(tmp_path):
    for name in ("one", "two"):
        audit(
            "tiny", "--attacks", "canaries", "--no-progress", "--seed", 3, "--out", tmp_path / name
        )
    one, two = (json.loads((tmp_path / n / "audit.json").read_text()) for n in ("one", "two"))
    assert one["canaries"] == two["canaries"]


def test_nothing_is_tested_where_nothing_is_promised(tmp_path):
    arguments = ["--set", "paradigm=fedfuse_nonprivate", "--attacks", "canaries", "--no-progress"]
    assert audit("tiny", *arguments, "--out", tmp_path) == 0
    found = json.loads((tmp_path / "audit.json").read_text())
    assert found["canaries"] is None
    assert found["epsilon"] is None


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["tiny", "--attacks", "magic"], "--attacks"),
        (["tiny", "--attacks", ""], "--attacks"),
        (["nothing"], "PRESET"),
        (["tiny", "--set", "paradigm=isolated"], "paradigm"),
    ],
)
def test_bad_input_is_one_line(arguments, field, capsys, tmp_path):
    assert audit(*arguments, "--no-progress", "--out", tmp_path) == 2
    error = capsys.readouterr().err
    assert field in error
    assert len(error.strip().splitlines()) == 1


def test_an_empty_folder_is_no_run(tmp_path, capsys):
    assert audit(tmp_path, "--no-progress") == 2
    assert "config.yaml" in capsys.readouterr().err


def test_a_runs_settings_are_fixed(finished, capsys):
    assert audit(finished, "--set", "seed=1", "--no-progress") == 2
    assert "--set" in capsys.readouterr().err
