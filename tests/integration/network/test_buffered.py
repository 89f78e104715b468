"""Buffered asynchronous rounds: who is in a step, how old its update is, what it weighs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedfuse_ray.federation.messages import wire
from fedfuse_ray.federation.modes.sides import ServerSide
from fedfuse_ray.runs.running import run
from tests.support.federations import guarantee_of, plan_of, rows_of, scores_of, tiny
from tests.support.watching import (
    BEHIND,
    BUFFERED,
    NAMES,
    SHAKY,
    SHORT,
    SLOW,
    TABLES,
    Watched,
    rows_by_key,
    seconds_of,
    simulated_of,
    tables,
)


class Payloads:
    """Keeps what reached the server, round by round."""

    def __init__(self, monkeypatch):
        self.rounds = []
        finish = ServerSide.finish

        def kept(side, round, messages):
            self.rounds.append([wire.unpack(bytes(p)) for _, p in messages])
            return finish(side, round, messages)

        monkeypatch.setattr(ServerSide, "finish", kept)


def schedule(rows, steps, size):
    """Replay who arrives in which step: by hand, from each one's own seconds."""
    now, under_way = 0.0, {}
    for number in range(1, steps + 1):
        for who in NAMES:
            under_way.setdefault(who, (now + rows[who], number))
        first = sorted(under_way, key=lambda who: (under_way[who][0], NAMES.index(who)))[:size]
        ended = max(under_way[who][0] for who in first)
        ages = {who: number - under_way.pop(who)[1] for who in first}
        yield now, ended, ages
        now = ended


def test_a_step_is_taken_when_the_buffer_is_full(tmp_path):
    run(tiny(BEHIND, BUFFERED, "training.rounds=9"), tmp_path)
    rounds, _ = tables(tmp_path)
    rows = rows_by_key(tmp_path)
    # On links without jitter an institution takes as long each time.
    each = {who: seconds_of(row) for (_, who), row in reversed(rows.items())}
    assert each["med-01"] > 2 * each["mat-01"]
    for row, (begun, ended, ages) in zip(rounds, schedule(each, 9, 2), strict=True):
        here = {who: r for (n, who), r in rows.items() if n == row["round"]}
        found = {who: r["staleness"] for who, r in here.items() if r["status"] == "sent"}
        assert found == ages
        assert row["simulated_start"] == pytest.approx(begun)
        assert row["simulated_seconds"] == pytest.approx(ended - begun)
        assert row["participants"] == 2
        # The last step also tells of what is still on its way then.
        under_way = [r["uplink_bytes"] for r in here.values() if r["status"] == "late"]
        assert under_way == ([0] if row["round"] == 9 else [])
        assert row["dropouts"] == len(under_way)
    own = [r for (_, who), r in rows.items() if who == "med-01" and r["status"] == "sent"]
    old = [r["staleness"] for r in own]
    assert len(old) >= 2
    assert min(old) >= 2


@pytest.mark.parametrize("codec", ["fp32", "topk"])
def test_updates_are_weighed_by_their_age(tmp_path, monkeypatch, codec):
    received, watched = Payloads(monkeypatch), Watched()
    experiment = tiny(BEHIND, BUFFERED, "training.rounds=9", f"compression.codec={codec}")
    run(experiment, tmp_path, executor=watched)
    plan = plan_of(experiment)
    aged = 0
    for number, (messages, step) in enumerate(
        zip(received.rounds, watched.steps(), strict=True), 1
    ):
        for name, moved in step.items():
            here = [m for m in messages if name in m.blocks]
            # Unequal ages only show where a young and an old update meet in one block.
            aged += len({m.round for m in here}) > 1
            total, fractions = np.zeros(moved.size), 0.0
            for m in here:
                sent = plan.coding.decode(
                    m.blocks[name], name, moved.size, m.round, m.institution, {}
                )
                total += sent.astype(np.float64) / math.sqrt(1 + number - m.round)
                fractions += plan.fractions[name][m.institution]
            wanted = total / fractions if here else total
            np.testing.assert_allclose(moved, wanted, atol=1e-6)
    assert aged > 0


def test_without_an_exponent_age_does_not_matter(tmp_path):
    digests = {
        exponent: run(
            tiny(BEHIND, BUFFERED.replace("0.5", exponent), "training.rounds=6"),
            tmp_path / exponent,
        ).weights_sha256
        for exponent in ("0.0", "0.5", "2.0")
    }
    assert len(set(digests.values())) == 3


def test_a_buffer_for_everybody_is_the_synchronous_run(tmp_path):
    everybody = "network.aggregation={kind: buffered-async, buffer_size: 3}"
    waiting = run(tiny(BEHIND), tmp_path / "waiting")
    buffered = run(tiny(BEHIND, everybody), tmp_path / "buffered")
    # The account knows one run more on the same records.
    alike = {"time": buffered.time, "privacy": buffered.privacy}
    assert buffered == waiting.model_copy(update=alike)
    assert guarantee_of(buffered) == guarantee_of(waiting)
    assert buffered.time.simulated_seconds == pytest.approx(waiting.time.simulated_seconds)


def test_a_buffer_does_not_wait_for_the_slow(tmp_path):
    waiting = run(tiny(SLOW, "training.rounds=2"), tmp_path / "waiting")
    buffered = run(tiny(SLOW, BUFFERED, "training.rounds=2"), tmp_path / "buffered")
    assert buffered.time.simulated_seconds < waiting.time.simulated_seconds / 100
    sent = {r["institution"] for r in tables(tmp_path / "buffered")[1] if r["status"] == "sent"}
    assert sent == {"med-02", "mat-01"}


def test_a_row_says_when_its_update_was_begun(tmp_path):
    run(tiny(BEHIND, BUFFERED, "training.rounds=9"), tmp_path)
    rounds, rows = tables(tmp_path)
    starts = [row["simulated_start"] for row in rounds]
    for row in rows:
        assert row["started"] == starts[row["round"] - 1 - row["staleness"]]


@pytest.mark.parametrize(
    ("settings", "paradigm"),
    [
        (("network.preset=mixed", SHORT, "compression.codec=topk"), "fedfuse_nonprivate"),
        (("network.preset=rural", BUFFERED, "compression.codec=topk"), "fedfuse_nonprivate"),
        (("network.preset=mixed", SHAKY, SHORT, "compression.codec=modint"), "fedfuse"),
    ],
    ids=["deadline", "buffered", "secure"],
)
def test_one_seed_one_result(tmp_path, settings, paradigm):
    for name in "ab":
        run(tiny(*settings, "training.rounds=4", paradigm=paradigm), tmp_path / name)
    run(tiny(*settings, "seed=1", "training.rounds=4", paradigm=paradigm), tmp_path / "other")
    assert scores_of(tmp_path / "a") == scores_of(tmp_path / "b")
    simulated = {name: simulated_of(tmp_path / name) for name in ("a", "b", "other")}
    for table in TABLES:
        assert rows_of(tmp_path / "a", table) == rows_of(tmp_path / "b", table)
    assert simulated["a"] == simulated["b"] != simulated["other"]
