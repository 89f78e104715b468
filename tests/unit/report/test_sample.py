"""The sample run folder of the report's tests is one that the report reads."""

from __future__ import annotations

import pytest

from fedfuse_ray.report import read_run
from tests.support.pages.report_sample import write_sample


@pytest.mark.parametrize("private", [False, True])
def test_the_sample_reads_back(tmp_path, private):
    run = read_run(write_sample(tmp_path, rounds=3, private=private))
    assert run.rounds.num_rows == 3
    assert run.institutions.num_rows == 45
    assert len(run.evaluation.institutions) == 15
    assert sum(len(d.views[-1].modalities) for d in run.evaluation.domains.values()) == 9
