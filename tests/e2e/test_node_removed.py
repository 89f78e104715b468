"""A node of the cluster removed while a round trains, with institutions and updates on it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from ray.cluster_utils import Cluster

from fedfuse_ray.runs.running import run
from tests.support.federations import rows_of, scores_of, tiny
from tests.support.processes.commands import environment, rounds_in

pytestmark = [pytest.mark.ray, pytest.mark.slow]
SETTINGS = ("training.rounds=12", "training.local_epochs=8", "strategy.kind=scaffold")


@contextmanager
def cluster_of(cpus):
    """Start a head with so many CPUs and a second node with two."""
    head = {"num_cpus": cpus, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield made, made.add_node(num_cpus=2)
    finally:
        made.shutdown()


def start(cluster, folder, *settings):
    """Start a run in a process of its own, which joins the cluster's head."""
    words = [word for setting in (*SETTINGS, *settings) for word in ("--set", setting)]
    words += ["--paradigm", "fedfuse_nonprivate", "--no-progress"]
    return subprocess.Popen(
        [sys.executable, "-m", "fedfuse_ray", "run", "tiny", *words, "--out", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(RAY_ADDRESS=cluster.address),
    )


def removed(cluster, node, out, *settings):
    """Remove the node once three rounds were told; returns the run's status and complaint."""
    process = start(cluster, out, "execution.placement=SPREAD", *settings)
    said = []
    reader = threading.Thread(target=lambda: said.append(process.stderr.read()))
    reader.start()
    try:
        deadline = time.monotonic() + 200
        while rounds_in(out) < 3:
            assert process.poll() is None, said
            assert time.monotonic() < deadline
            time.sleep(0.02)
        cluster.remove_node(node, allow_graceful=False)
        status = process.wait(250)
    finally:
        process.kill()
        reader.join()
    return status, said[0]


def test_a_node_removed_while_a_round_trains_changes_nothing(tmp_path):
    out = tmp_path / "run"
    with cluster_of(4) as (cluster, node):
        status, said = removed(cluster, node, out)
    assert status == 0, said
    run(tiny(*SETTINGS), tmp_path / "whole")
    assert scores_of(out) == scores_of(tmp_path / "whole")
    table = "institutions.parquet"
    assert rows_of(out, table) == rows_of(tmp_path / "whole", table)


def test_a_node_removed_that_no_other_makes_up_for_is_told(tmp_path):
    with cluster_of(1) as (cluster, node):
        status, said = removed(cluster, node, tmp_path / "run", "execution.startup_seconds=60")
    assert status == 1
    assert "error: institution m" in said
    assert "is not up again after 60 s (execution.startup_seconds)" in said
