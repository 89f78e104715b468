"""Rounds in which some were not chosen: what they do, keep and miss, and whom the server awaits."""

from __future__ import annotations

import numpy as np
import pytest

from fedfuse_ray.runs.running import run
from tests.support.federations import tiny
from tests.support.watching import (
    DEADLINE,
    NAMES,
    Watched,
    rows_by_key,
    seconds_of,
    status_of,
    tables,
)

CYCLIC = ("selection.kind=cyclic", "training.rounds=4")
KEEPING = {
    "control variates": ("strategy.kind=scaffold",),
    "ef14": ("compression.codec=topk", "compression.fraction=0.05"),
    "ef21": ("compression.codec=topk", "compression.feedback=ef21"),
}


def test_who_is_not_chosen_neither_trains_nor_sends_and_is_no_dropout(tmp_path):
    run(tiny(*CYCLIC), tmp_path)
    told, rows = status_of(tmp_path), rows_by_key(tmp_path)
    for number in range(1, 5):
        out = "med-02" if number % 2 else "med-01"
        assert {who for who in NAMES if told[number, who] == "not selected"} == {out}
        row = rows[number, out]
        assert row["steps"] == row["uplink_bytes"] == row["downlink_bytes"] == 0
        assert row["loss"] is None
        assert seconds_of(row) == 0.0
        assert row["validation_accuracy"] is not None  # It scores the model all the same.
    for row in tables(tmp_path)[0]:
        assert (row["participants"], row["dropouts"]) == (2, 0)


@pytest.mark.parametrize("kept", KEEPING)
def test_who_is_not_chosen_keeps_its_state(tmp_path, kept):
    watched = Watched()
    run(tiny(*CYCLIC, *KEEPING[kept]), tmp_path, executor=watched)
    for (number, who), status in status_of(tmp_path).items():
        before, after = watched.states[number - 1].get(who, {}), watched.states[number].get(who, {})
        if status == "sent":
            assert any(not np.array_equal(before.get(name), after[name]) for name in after)
        else:
            assert before.keys() == after.keys()
            assert all(np.array_equal(before[name], after[name]) for name in after)


def test_a_block_whose_owners_were_not_chosen_stays(tmp_path):
    watched = Watched()
    run(tiny(*CYCLIC), tmp_path, executor=watched)
    for number, step in enumerate(watched.steps(), 1):
        assert step["encoder/mri"].any() == (number % 2 == 1)  # Only med-01 owns it.
        assert step["encoder/ct"].any()


def test_the_server_waits_for_nobody_that_it_did_not_ask(tmp_path):
    away = "network.links={med-02: {up_mbps: 10.0, down_mbps: 10.0, offline: [[0.0, 1e9]]}}"
    run(tiny(away, DEADLINE, *CYCLIC), tmp_path)
    told = status_of(tmp_path)
    assert {told[n, "med-02"] for n in range(1, 5)} == {"absent"}
    # In the turn of the one that is away, the next in line trains.
    assert {told[n, "med-01"] for n in range(1, 5)} == {"sent"}
    assert all(row["simulated_seconds"] < 1.0 for row in tables(tmp_path)[0])


def test_choosing_the_fast_shortens_rounds(tmp_path):
    slow = "network.links={med-01: {up_mbps: 0.1, down_mbps: 10.0}}"
    choose = ("selection.kind=resources", "selection.deadline_seconds=0.5")
    everyone = run(tiny(slow), tmp_path / "all").time.simulated_seconds
    summary = run(tiny(slow, *choose, "selection.at_least_every=3"), tmp_path / "fast")
    told = [status_of(tmp_path / "fast")[n, "med-01"] for n in (1, 2, 3)]
    assert told == ["sent", "not selected", "not selected"]
    assert summary.time.simulated_seconds < 0.5 * everyone
