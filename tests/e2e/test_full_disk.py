"""No room for a file: one line that names it, status 1; with room again --resume goes on."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys

import pytest

from fedfuse_ray.runs.running import run
from tests.support.federations import rows_of, scores_of, tiny
from tests.support.processes.commands import done, environment, fedfuse

ROUNDS = ("training.rounds=40",)
RUN = ("run", "tiny", "--executor", "serial", "--no-progress", "--set", *ROUNDS, "--out")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    run(tiny(*ROUNDS, paradigm="fedfuse"), folder)
    return folder


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 KB, for which one has to be root."""
    mount = shutil.which("mount")
    folder = tmp_path / "disk"
    folder.mkdir()
    size = ["-t", "tmpfs", "-o", "size=300k", "none", str(folder)]
    if mount is None or os.geteuid() or subprocess.run([mount, *size], check=False).returncode:
        pytest.skip("a small file system can't be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def complaint(finished, reason):
    """Return the file that a run could not write; it said so in one line."""
    assert finished.returncode == 1, finished.stderr
    lines = finished.stderr.splitlines()
    assert len(lines) == 1, finished.stderr
    assert f" can't be written: {reason}; " in lines[0]
    assert lines[0].endswith("continue with --resume")
    return lines[0].removeprefix("error: ").partition(" can't be written")[0]


def same(folder, whole):
    assert scores_of(folder) == scores_of(whole)
    for table in ("rounds.parquet", "institutions.parquet"):
        assert rows_of(folder, table) == rows_of(whole, table)
    ledger = "privacy_ledger.jsonl"
    assert (folder / ledger).read_text() == (whole / ledger).read_text()
    assert not list(folder.rglob(".*"))


def test_a_disk_that_fills_up(small_disk, whole):
    out = small_disk / "run"
    finished = fedfuse(*RUN, out, "--paradigm", "fedfuse")
    assert complaint(finished, "No space left on device").startswith(str(out))
    assert not (out / "summary.json").exists()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    done("run", "--resume", out, "--no-progress")
    same(out, whole)


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [6, 12, 24])
def test_files_that_may_not_grow(tmp_path, whole, kilobytes):
    # The ledger is appended to, tables grow, checkpoints are of one size: each is hit in turn.
    limit = kilobytes * 1024
    finished = subprocess.run(
        [sys.executable, "-m", "fedfuse_ray", *RUN, str(tmp_path), "--paradigm", "fedfuse"],
        capture_output=True,
        text=True,
        env=environment(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        check=False,
    )
    assert complaint(finished, "File too large").startswith(str(tmp_path))
    done("run", "--resume", tmp_path, "--no-progress")
    same(tmp_path, whole)
