"""Compression and links change nothing about one seed, one result: on Ray as in this process."""

from __future__ import annotations

import pytest

from fedfuse_ray.runs.reading import read_resumed
from fedfuse_ray.runs.running import run
from tests.support.federations import rows_of, scores_of, tiny
from tests.support.processes.interruptions import CutAfter, PowerCut
from tests.support.watching import (
    BEHIND,
    BUFFERED,
    DEADLINE,
    NO_COLLUDERS,
    SHAKY,
    SHORT,
    SLOW,
    TABLES,
    rows_by_key,
    simulated_of,
    tables,
)

pytestmark = pytest.mark.ray

EF21 = ("compression.codec=topk", "compression.feedback=ef21", SHAKY, SHORT, "training.rounds=4")
CHANGES = (
    "compression.codec=topk",
    "compression.downlink.codec=modint",
    """network.links={
        med-01: {up_mbps: 10.0, down_mbps: 10.0, jitter_ms: 5.0, availability: 0.5},
        med-02: {up_mbps: 10.0, down_mbps: 10.0, jitter_ms: 5.0, availability: 0.5},
    }""",
    "training.rounds=4",
)
SECURE = (
    SLOW,
    DEADLINE,
    "compression.codec=modint",
    "compression.downlink.codec=modint",
    "training.rounds=2",
    NO_COLLUDERS,
)
CHOSEN = (
    "selection.kind=random",
    "strategy.kind=scaffold",
    "strategy.weighting=loss",
    "compression.downlink.codec=modint",
    "network.preset=mixed",
    "training.rounds=4",
)
ASYNC = (BEHIND, BUFFERED, "compression.codec=topk", "training.rounds=5")


def on_ray(folder, *settings, per_actor, paradigm="fedfuse_nonprivate"):
    layout = (f"execution.institutions_per_actor={per_actor}", "execution.executor=ray")
    return run(tiny(*settings, *layout, paradigm=paradigm), folder)


def agrees(folder, other):
    """Weights, scores, bytes, epsilon, and every simulated second."""
    assert scores_of(folder) == scores_of(other)
    assert simulated_of(folder) == simulated_of(other)
    for table in TABLES:
        assert rows_of(folder, table) == rows_of(other, table)


def statuses(folder):
    return {row["status"] for row in tables(folder)[1]}


def test_error_feedback_with_late_ones(ray_address, serial, tmp_path):
    on_ray(tmp_path, *EF21, per_actor=1)
    agrees(tmp_path, serial(*EF21))
    assert statuses(tmp_path) == {"sent", "late"}


def test_changes_on_the_downlink_with_absent_ones(ray_address, serial, tmp_path):
    on_ray(tmp_path, *CHANGES, per_actor=2)
    agrees(tmp_path, serial(*CHANGES))
    assert statuses(tmp_path) == {"sent", "absent"}


def test_those_that_are_chosen_weighed_by_loss(ray_address, serial, tmp_path):
    on_ray(tmp_path, *CHOSEN, per_actor=2)
    agrees(tmp_path, serial(*CHOSEN))
    assert statuses(tmp_path) == {"sent", "not selected"}


def test_a_secure_deadline(ray_address, serial, tmp_path):
    on_ray(tmp_path, *SECURE, per_actor=2, paradigm="fedfuse")
    agrees(tmp_path, serial(*SECURE, paradigm="fedfuse"))
    assert statuses(tmp_path) == {"sent", "late"}


def test_updates_of_different_ages(ray_address, serial, tmp_path):
    on_ray(tmp_path, *ASYNC, per_actor=1)
    agrees(tmp_path, serial(*ASYNC))
    assert max(row["staleness"] for row in rows_by_key(tmp_path).values()) == 1


@pytest.mark.parametrize("begun", ["serial", "ray"])
def test_updates_on_their_way_move_between_executors(ray_address, serial, tmp_path, begun):
    other = {"serial": "ray", "ray": "serial"}[begun]
    with pytest.raises(PowerCut):
        run(tiny(*ASYNC, f"execution.executor={begun}"), tmp_path, progress=CutAfter(4))
    moved = read_resumed(tmp_path, executor=other)
    assert run(moved, tmp_path, resume=True).executor == other
    agrees(tmp_path, serial(*ASYNC))
