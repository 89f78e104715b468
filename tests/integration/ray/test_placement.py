"""What is packed on paper, Ray places; what is not, it does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

import pytest

from actors.packing import Host, Node, asks, granted, in_order, pack
from fedfuse_ray.runs.running import run
from tests.support.federations import tiny
from tests.support.paths import ROOT

pytestmark = pytest.mark.ray
NODES = [(50, 4), (50, 4), (50, 2)]
THIRD = granted(0.3)
GROUPS = [
    ("PACK", [0.3] * 13),  # Ray counts 0.4 free on a node whose GPUs have 0.1 each
    ("PACK", [THIRD] * 13),
    ("PACK", [THIRD] * 30),
    ("SPREAD", [THIRD] * 30),
    ("PACK", [THIRD] * 31),
    ("PACK", [0.4, 0.4, 0.6, 0.6] * 5),
    ("SPREAD", [2.0, 0.5, 0.5, 2.0] * 2),
    ("PACK", [0.25, 0.5, 0.25] * 10),
    ("SPREAD", [0.25, 0.5, 0.25] * 10),
    ("PACK", [4.0, 3.0]),
]


def hosts(shares):
    unordered = [Host(f"h{i}", f"h{i}", (f"h{i}",), 0.1, s) for i, s in enumerate(shares)]
    return in_order(unordered)


@pytest.fixture(scope="module")
def answer(tmp_path_factory):
    """Return what the simulated cluster did."""
    out = tmp_path_factory.mktemp("simulated")
    asked = {
        "nodes": NODES,
        "out": str(out),
        "groups": [
            (p, [(asks(h).get("CPU", 0), asks(h).get("GPU", 0)) for h in hosts(shares)])
            for p, shares in GROUPS
        ],
    }
    # Its own and short: Ray's sockets lie in it, and its notes must not mislead other tests.
    temporary = tempfile.TemporaryDirectory(prefix="ff-", dir="/tmp", ignore_cleanup_errors=True)
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    with temporary as folder:
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.processes.simulated_cluster"],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            timeout=200,
            env={**kept, "PYTHONPATH": path, "RAY_worker_niceness": "0", "RAY_TMPDIR": folder},
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_paper_and_ray_agree(answer):
    nodes = [Node(f"n{i}", *offered) for i, offered in enumerate(NODES)]
    for (placement, shares), (placed, counts) in zip(GROUPS, answer["groups"], strict=True):
        packing = pack(hosts(shares), nodes, placement)
        assert packing.fits == placed, (placement, shares, packing.missing)
        if placed:
            where = list(packing.where.values())
            assert sorted(where.count(i) for i in set(where)) == counts, (placement, shares)
    assert {placed for placed, _ in answer["groups"]} == {True, False}


def test_institutions_that_share_gpus_come_to_the_serial_weights(answer, tmp_path):
    assert answer["actors"] == [1, 1, 1]
    assert answer["weights"] == run(tiny(), tmp_path).weights_sha256
