"""The privacy account as a user meets it: manifests that come back, budgets, a sweep that stops."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from fedfuse_ray.accounts.store import FILE, read
from fedfuse_ray.cli import main
from fedfuse_ray.studies.sweeping.store import DONE, SweepStore
from tests.support import importer_files as files
from tests.support.processes.commands import ROOT, SECONDS, environment

QUICK = ("--executor", "serial", "--no-progress", "--paradigm", "fedfuse")
SETTINGS = ("--set", "training.rounds=2", "--set", "privacy.target_epsilon=1")
SMALL = (
    "--set",
    "data.image_size=16",
    "--set",
    "privacy.delta=0.01",
    "--set",
    "model={embedding_dim: 8, encoder: {kind: cnn, width: 4, weights: random, trainable: false}}",
)


def write(folder, rows):
    """Write a manifest whose images all differ, the same bytes for the same name."""
    for row in rows:
        path = folder / row["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        name = f"{row['modality']}/{row['specimen_id']}"
        path.write_bytes(files.png(value=sum(map(ord, name)) % 251, size=20 + len(name)))
    return files.save(folder, rows)


def total(printed):
    found = re.search(r"Total for these records: epsilon ([0-9.]+) over (\d+) private", printed)
    assert found, printed
    return float(found[1]), int(found[2])


@pytest.fixture
def call(capsys):
    """Return what calls a command, and gives back its status and what it printed."""

    def start(*arguments):
        status = main([str(each) for each in arguments])
        return status, *capsys.readouterr()

    return start


@pytest.fixture
def ran(call):
    """Return what runs a manifest to its end, and gives back what it printed."""

    def start(manifest, out, *more):
        status, printed, error = call(
            "run", manifest, *QUICK, *SMALL, *SETTINGS, "--out", out, *more
        )
        assert status == 0, error
        return printed

    return start


@pytest.fixture
def refused(call):
    """Return what calls a command on bad input, and gives back its one line."""

    def start(*arguments):
        status, _, error = call(*arguments)
        assert status == 2, error
        assert len(error.splitlines()) == 1, error
        return error

    return start


@pytest.fixture(scope="module")
def rows():
    from itertools import pairwise

    found = files.federation()
    paths = {row["path"] for row in found}
    assert len(paths) == len(found)
    assert all(one != other for one, other in pairwise(found))
    return found


def test_a_manifest_that_comes_back_in_any_form_adds_up(rows, ran, refused, tmp_path):
    one, runs = write(tmp_path / "one", rows), tmp_path / "runs"
    printed = ran(one, runs / "a")
    assert total(printed) == (1.0, 1)
    # Moved to another folder, its rows in another order.
    moved = write(tmp_path / "elsewhere", rows[::-1])
    (tmp_path / "one" / "m.csv").unlink()
    twice, runs_on_it = total(ran(moved, runs / "b"))
    assert twice > 1.2
    assert runs_on_it == 2
    # Joined with other specimens of other institutions.
    others = [
        {
            **row,
            "specimen_id": f"new{row['specimen_id']}",
            "path": f"new/{n}.png",
            "institution": row["institution"] and f"new-{row['institution']}",
        }
        for n, row in enumerate(rows)
    ]
    joined = write(tmp_path / "joined", [*rows, *others])
    assert total(ran(joined, runs / "c"))[0] > twice
    summary = json.loads((runs / "c" / "summary.json").read_text())["privacy"]
    assert summary["total_epsilon"] > twice - 0.01 > summary["epsilon"]
    assert (summary["total_runs"], summary["unprotected_runs"]) == (3, 0)
    # What would exceed the budget touches nothing.
    before = sorted(p.name for p in runs.iterdir())
    account = (runs / FILE).read_bytes()
    told = refused("run", moved, *QUICK, *SMALL, *SETTINGS, "--out", runs / "d", "--budget", 2)
    assert "--budget" in told
    assert "3 earlier runs" in told
    assert sorted(p.name for p in runs.iterdir()) == before
    assert (runs / FILE).read_bytes() == account
    # An account that somebody has changed is refused.
    (runs / FILE).write_bytes(account.replace(b'"noise_multiplier": ', b'"noise_multiplier": 9', 1))
    assert "was altered" in refused("run", moved, *QUICK, *SMALL, "--out", runs / "e")


@pytest.mark.parametrize("budget", ["0", "-1", "nan", "inf"])
def test_a_budget_is_a_positive_epsilon(budget, refused, tmp_path):
    told = refused("run", "tiny", *QUICK, "--out", tmp_path / "a", f"--budget={budget}")
    assert "--budget" in told
    assert not list(tmp_path.iterdir())


def sweep(*arguments, **values):
    return subprocess.run(
        [sys.executable, "-m", "fedfuse_ray.sweep", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=environment(**values),
        cwd=ROOT,
        check=False,
    )


SWEEP = """
base: tiny
paradigm: fedfuse
space:
  privacy.target_epsilon: [1, 1.5]
  privacy.clip_norm: [0.5, 1.0]
concurrent: 1
"""


@pytest.mark.ray
def test_a_sweep_stops_where_its_budget_is_spent_and_goes_on_with_a_greater_one(
    tmp_path, ray_address
):
    source, folder = tmp_path / "sweep.yaml", tmp_path / "s"
    source.write_text(SWEEP)
    first = sweep(source, "--out", folder, "--budget", 0.5, RAY_ADDRESS=ray_address)
    assert first.returncode == 2, first.stderr
    assert not folder.exists()
    stopped = sweep(source, "--out", folder, "--budget", 1.6, RAY_ADDRESS=ray_address)
    assert stopped.returncode == 1, stopped.stderr
    assert len(stopped.stderr.splitlines()) == 1
    assert "would bring the same records to epsilon" in stopped.stderr
    assert total(stopped.stdout)[0] <= 1.6
    rows = SweepStore(folder).rows()
    ended = [row for row in rows if row.status == DONE]
    assert len(ended) == 2
    rest = sweep("--resume", folder, "--budget", 9, RAY_ADDRESS=ray_address)
    assert rest.returncode == 0, rest.stderr
    epsilon, count = total(rest.stdout)
    assert (count, epsilon > 1.6) == (4, True)
    assert len(read(tmp_path / FILE).runs) == 4
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["total"]["runs"] == 4
    assert "Total for these records" in (folder / "report.html").read_text()


def test_nobody_but_their_owner_reads_the_keys_and_no_result_holds_them(rows, ran, tmp_path):
    manifest = write(tmp_path / "data", rows)
    ran(manifest, tmp_path / "runs" / "a", "--account", tmp_path / "mine.jsonl")
    assert (tmp_path / "mine.jsonl").stat().st_mode & 0o077 == 0
    assert not (tmp_path / "runs" / FILE).exists()
    units = next(iter(read(tmp_path / "mine.jsonl").units.values()))
    for path in (tmp_path / "runs" / "a").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not any(bytes(k) in data or bytes(k).hex().encode() in data for k in units.keys)
