"""What the tests on Ray share."""

from __future__ import annotations

import pytest

from fedfuse_ray.runs.running import run
from tests.support.federations import tiny


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    """Return the folder of the same run in this process, made once for each setting."""
    made = {}

    def folder_of(*settings, paradigm="fedfuse_nonprivate"):
        key = (settings, paradigm)
        if key not in made:
            made[key] = tmp_path_factory.mktemp("serial")
            run(tiny(*settings, paradigm=paradigm), made[key])
        return made[key]

    return folder_of
