"""Private modes whose noise is added outside secure sums: on Ray as in this process.

`record-distributed`, the fourth mode, is compared in `test_network.py` and `test_survivors.py`.
"""

from __future__ import annotations

import pytest

from fedfuse_ray.runs.reading import read_resumed
from fedfuse_ray.runs.running import run
from tests.support.federations import rows_of, scores_of, tiny
from tests.support.processes.interruptions import CutAfter, PowerCut
from tests.support.watching import TABLES

pytestmark = pytest.mark.ray
LEDGER = "privacy_ledger.jsonl"
RAY = "execution.executor=ray"
# Noise at each institution and step; at the server, for a sample of institutions; at each
# institution, and at the server for what few uploads lack.
MODES = {
    "record-local": ("privacy.mode=record-local", "training.local_epochs=2"),
    "client": ("privacy.mode=client", "privacy.sampling_rate=0.5", "training.rounds=4"),
    "local-update": ("privacy.mode=local-update", "privacy.uplink_exposures=1"),
}


def agrees(folder, other):
    """Weights, scores, bytes, and every charge, to the byte."""
    assert scores_of(folder) == scores_of(other)
    assert (folder / LEDGER).read_bytes() == (other / LEDGER).read_bytes()
    for table in TABLES:
        assert rows_of(folder, table) == rows_of(other, table)


@pytest.mark.parametrize("mode", MODES)
def test_noise_samples_and_charges_are_the_same(ray_address, serial, tmp_path, mode):
    """Begun on Ray, and ended in this process: what either of them adds must be the other's."""
    settings, whole = MODES[mode], serial(*MODES[mode], paradigm="fedfuse")
    with pytest.raises(PowerCut):
        run(tiny(*settings, RAY, paradigm="fedfuse"), tmp_path, progress=CutAfter(2))
    assert rows_of(tmp_path, TABLES[1]) == rows_of(whole, TABLES[1])[:6]
    begun = read_resumed(tmp_path, executor="serial")
    assert run(begun, tmp_path, resume=True).executor == "serial"
    agrees(tmp_path, whole)
    # Negative control: another seed gives other noise, and the comparison would see it.
    other = serial(*settings, "seed=1", paradigm="fedfuse")
    assert scores_of(other)["weights_sha256"] != scores_of(whole)["weights_sha256"]
