"""The command line in a process of its own, as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from tests.support.paths import ROOT

SECONDS = 240


def environment(**values: str) -> dict[str, str]:
    """Return the environment of a command: the checkout's code, the tests' cache."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "COLUMNS": "100", **values}


def fedfuse(
    *arguments: object, cwd: Path | None = None, **values: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "fedfuse_ray", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd=cwd,
        env=environment(**values),
        check=False,
    )


def done(*arguments: object, cwd: Path | None = None, **values: str) -> str:
    """Run a command that must succeed; returns what it printed."""
    finished = fedfuse(*arguments, cwd=cwd, **values)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def refused(*arguments: object, cwd: Path | None = None) -> str:
    """Run a command on bad input: status 2, one line on standard error, which is returned."""
    finished = fedfuse(*arguments, cwd=cwd)
    assert finished.returncode == 2, finished.stderr or finished.stdout
    lines = finished.stderr.splitlines()
    assert len(lines) == 1, finished.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def killed_once(seen: Callable[[], bool], *arguments: object, **values: str) -> None:
    """Start a command and kill it, with no chance to tidy up, as soon as `seen` holds."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fedfuse_ray", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**values),
    )
    try:
        deadline = time.monotonic() + SECONDS
        while not seen():
            assert process.poll() is None, f"it ended too early: {process.communicate()[1]}"
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -9


def rounds_in(folder: Path) -> int:
    """Return how many rounds a run has told of so far."""
    path = folder / "rounds.parquet"
    if not path.is_file():
        return 0
    # `read_table` opens the file twice, and the run may replace it in between.
    with pq.ParquetFile(path) as file:
        return int(file.metadata.num_rows)
