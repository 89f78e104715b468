"""The driver killed at each moment of writing, and resumed: the same folder in the end."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.processes.commands import environment


@pytest.mark.parametrize("stride", [13, pytest.param(3, marks=pytest.mark.slow)])
def test_a_driver_killed_while_writing_resumes_to_the_same_folder(tmp_path, stride):
    finished = subprocess.run(
        [sys.executable, "-m", "tests.support.processes.crashing", str(tmp_path), str(stride)],
        capture_output=True,
        text=True,
        timeout=280,
        env=environment(),
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout.splitlines()[-1])
    assert found["failures"] == []
    assert found["tried"] >= 4
    # A flush and two sides of a rename for most files: six to begin with, five a round, five more.
    assert found["of"] > 50
    assert found["early"] < found["tried"] / 2
