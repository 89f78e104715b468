"""The bytes that a run reports are the lengths of what crossed the network, to the byte.

A tap stands where messages arrive: at the institutions' reading of the broadcast, at each member's
steps, and at the server's doors. It knows nothing of records, rows or lengths kept elsewhere.
"""

from __future__ import annotations

import json
from collections import Counter

import pyarrow.parquet as pq
import pytest

from fedfuse_ray.federation.messages import wire
from fedfuse_ray.federation.messages.downlink import Downlink
from fedfuse_ray.federation.modes.masked import MaskedMember, MaskedStep
from fedfuse_ray.federation.modes.sides import InstitutionSide, ServerSide
from fedfuse_ray.runs.running import run
from tests.support.federations import tiny

SLOW = "network.links={med-01: {up_mbps: 0.01, down_mbps: 10.0}}"
DEADLINE = "network.aggregation={kind: deadline, deadline_seconds: 2.0}"
AWAY = """network.links={
    med-02: {up_mbps: 10.0, down_mbps: 10.0, offline: [[0.0, 0.05]]},
    mat-01: {up_mbps: 10.0, down_mbps: 10.0, latency_ms: 40.0},
}"""
ELUSIVE = """network.links={
    med-01: {up_mbps: 10.0, down_mbps: 10.0, availability: 0.5},
    med-02: {up_mbps: 10.0, down_mbps: 10.0, availability: 0.5},
}"""
LOSING = (
    ELUSIVE,
    DEADLINE,
    NO_COLLUDERS,
    "training.rounds=8",
    "seed=2",
    "execution.evaluate_every=8",
)
"""Under secure aggregation some of these rounds fall below the threshold."""

STEPS = tuple(MaskedStep)


class Tap:
    """Adds up what arrives, by round and institution."""

    def __init__(self, monkeypatch):
        self.up, self.down = Counter(), Counter()
        self.broadcasts, self.steps = Counter(), Counter()
        self.codecs = {}
        self._reader = ""
        taps = {
            (InstitutionSide, "take"): self._reading,
            (Downlink, "receive"): self._received,
            (MaskedMember, "take"): self._answered,
            (ServerSide, "close"): self._messages,
            (ServerSide, "finish"): self._last_messages,
        }
        for (owner, name), tap in taps.items():
            monkeypatch.setattr(owner, name, self._before(getattr(owner, name), tap))

    @staticmethod
    def _before(method, tap):
        def tapped(self, *arguments, **named):
            tap(self, *arguments, **named)
            return method(self, *arguments, **named)

        return tapped

    def _reading(self, side, *arguments, **named):
        self._reader = side.institution.name

    def _received(self, downlink, data, held):
        message = wire.unpack(data)
        key = message.round, self._reader
        self.down[key] += len(data)
        self.broadcasts[key] += 1
        self.codecs[key] = message.codec

    def _answered(self, member, step, turn):
        answer = turn.answer
        own = answer.apart.get(self._reader, b"") if answer.apart else answer.shared
        self.down[turn.round, self._reader] += len(own)

    def _messages(self, side, step, round, messages):
        for who, message in messages:
            self.up[round, who] += len(message)
            self.steps[step, who] += 1

    def _last_messages(self, side, round, messages):
        if side.server.plan.mode == "masked":
            self._messages(side, STEPS[-1], round, messages)
            return
        for _, payload in messages:
            self.up[round, wire.unpack(payload).institution] += len(payload)


@pytest.fixture
def tap(monkeypatch):
    return Tap(monkeypatch)


def tables(folder):
    names = ("rounds.parquet", "institutions.parquet")
    rounds, rows = (pq.read_table(folder / name).to_pylist() for name in names)
    return rounds, rows, json.loads((folder / "summary.json").read_text())["communication"]


def agrees(tap, folder):
    """Compare every table with the tap; returns the rows of the institutions."""
    rounds, rows, summary = tables(folder)
    by_institution = {(r["round"], r["institution"]): r for r in rows}
    assert tap.down.total() > 0
    for column, counted in (("uplink_bytes", tap.up), ("downlink_bytes", tap.down)):
        told = {key: row[column] for key, row in by_institution.items() if row[column]}
        assert told == dict(+counted)
        for row in rounds:
            arrived = sum(n for (number, _), n in counted.items() if number == row["round"])
            assert row[column] == arrived
    assert summary["uplink_bytes_total"] == tap.up.total()
    assert summary["uplink_bytes_per_round"] == tap.up.total() / len(rounds)
    assert summary["downlink_bytes_per_round"] == tap.down.total() / len(rounds)
    return by_institution


@pytest.mark.parametrize(
    "settings",
    [
        ("compression.codec=fp32",),
        ("compression.codec=topk",),
        ("compression.codec=modint", "compression.bits=4"),
        ("compression.codec=rot1bit", "compression.downlink.codec=modint"),
        ("compression.codec=powersgd", "compression.downlink.codec=topk"),
        ("compression.codec=topk", "compression.policy.kind=adaptive"),
        ("strategy.kind=scaffold", "compression.codec=fp16", "compression.downlink.codec=fp16"),
    ],
    ids=lambda settings: " ".join(s.split(".")[-1] for s in settings),
)
def test_plain_rounds(tap, tmp_path, settings):
    run(tiny(*settings), tmp_path)
    rows = agrees(tap, tmp_path)
    assert len(tap.up) == len(tap.down) == 9
    assert set(tap.broadcasts.values()) == {1}
    # The payload is what is left of the message without its header.
    for row in rows.values():
        assert 0 < row["uplink_bytes"] - row["payload_bytes"] < 900


def test_compression_is_seen_on_the_wire(tap, tmp_path):
    run(tiny("training.rounds=2"), tmp_path / "fp32")
    agrees(tap, tmp_path / "fp32")
    long = tap.up.total(), tap.down.total()
    tap.up.clear(), tap.down.clear()
    strong = ("compression.codec=rot1bit", "compression.downlink.codec=rot1bit")
    run(tiny(*strong, "training.rounds=2"), tmp_path / "rot1bit")
    agrees(tap, tmp_path / "rot1bit")
    assert tap.up.total() < long[0] / 15
    # The first broadcast is the weights themselves.
    assert long[1] / 2 < tap.down.total() < 0.6 * long[1]


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("compression.codec=modint",),
        ("compression.codec=subspace", "compression.downlink.codec=subspace"),
        ("privacy.adaptive_clipping.enabled=true", "compression.downlink.codec=modint"),
    ],
    ids=lambda settings: " ".join(s.split(".")[-1] for s in settings) or "fp32",
)
def test_secure_rounds_count_every_step_both_ways(tap, tmp_path, settings):
    run(tiny(*settings, paradigm="fedfuse"), tmp_path)
    rows = agrees(tap, tmp_path)
    names = {who for _, who in tap.up}
    assert tap.steps == {(step, who): 3 for step in STEPS for who in names}
    assert set(tap.broadcasts.values()) == {1}
    for row in rows.values():
        assert row["uplink_bytes"] > row["payload_bytes"] > 0


@pytest.mark.parametrize("paradigm", ["fedfuse_nonprivate", "fedfuse"])
def test_the_late_are_told_and_send_no_update(tap, tmp_path, paradigm):
    late = (SLOW, DEADLINE, NO_COLLUDERS)
    run(tiny(*late, "compression.downlink.codec=modint", paradigm=paradigm), tmp_path)
    rows = agrees(tap, tmp_path)
    for (number, who), row in rows.items():
        assert row["status"] == ("late" if who == "med-01" else "sent")
        assert row["downlink_bytes"] > 0
        assert tap.broadcasts[number, who] == 1
    update = rows[1, "med-02"]["payload_bytes"]
    assert rows[1, "med-01"]["payload_bytes"] == 0
    assert rows[1, "med-01"]["uplink_bytes"] < update / 5
    if paradigm == "fedfuse":
        # Keys and shares were exchanged before it was late.
        assert {step for step, who in tap.steps if who == "med-01"} == set(STEPS[:2])


@pytest.mark.parametrize("paradigm", ["fedfuse_nonprivate", "fedfuse"])
def test_who_was_absent_is_sent_the_weights_anew(tap, tmp_path, paradigm):
    changes = "compression.downlink.codec=modint"
    run(tiny(AWAY, NO_COLLUDERS, changes, paradigm=paradigm), tmp_path)
    rows = agrees(tap, tmp_path)
    assert rows[1, "med-02"]["status"] == "absent"
    assert tap.down[1, "med-02"] == tap.up[1, "med-02"] == 0
    assert {rows[number, "med-02"]["status"] for number in (2, 3)} == {"sent"}
    # Whole weights in the second round, a change of a byte an entry in the third.
    if paradigm == "fedfuse_nonprivate":
        assert tap.down[2, "med-02"] > 3 * tap.down[3, "med-02"] > 0
    assert tap.down[2, "med-02"] > tap.down[3, "med-02"] + 5000


def test_a_lost_round_counts_what_was_sent_in_it(tap, tmp_path):
    run(tiny(*LOSING, paradigm="fedfuse"), tmp_path)
    rows = agrees(tap, tmp_path)
    lost = [row["round"] for row in tables(tmp_path)[0] if not row["participants"]]
    assert lost
    for number in lost:
        assert rows[number, "mat-01"]["uplink_bytes"] == tap.up[number, "mat-01"] > 0


def changes_to_nothing(tap):
    """Return who was sent a change though the broadcast before had not reached it."""
    changes = [key for key, codec in tap.codecs.items() if codec != "fp32"]
    assert changes
    return [(number, who) for number, who in changes if (number - 1, who) not in tap.codecs]


@pytest.mark.parametrize("paradigm", ["fedfuse_nonprivate", "fedfuse"])
def test_a_change_is_only_sent_to_who_has_what_it_changes(tap, tmp_path, paradigm):
    links = "network.links={med-01: {up_mbps: 10.0, down_mbps: 10.0, availability: 0.5}}"
    changing = (
        "compression.downlink.codec=modint",
        "training.rounds=8",
        "seed=2",
        NO_COLLUDERS,
    )
    run(tiny(links, *changing, "execution.evaluate_every=8", paradigm=paradigm), tmp_path)
    told = {(r["round"], r["institution"]): r["status"] for r in tables(tmp_path)[1]}
    assert "absent" in told.values()
    assert changes_to_nothing(tap) == []


def test_who_was_not_chosen_is_sent_the_weights_anew(tap, tmp_path):
    choosing = ("selection.kind=random", "training.rounds=6", "execution.evaluate_every=6")
    run(tiny(*choosing, "compression.downlink.codec=modint"), tmp_path)
    rows = agrees(tap, tmp_path)
    out = [key for key, row in rows.items() if row["status"] == "not selected"]
    assert len(out) == 6
    assert all(tap.down[key] == tap.up[key] == 0 for key in out)
    assert changes_to_nothing(tap) == []


def test_a_lost_round_leaves_nobody_behind(tap, tmp_path):
    run(tiny(*LOSING, "compression.downlink.codec=modint", paradigm="fedfuse"), tmp_path)
    lost = [row["round"] for row in tables(tmp_path)[0] if not row["participants"]]
    # Those who were there had not fetched the model when it was given up.
    assert any((number, "mat-01") not in tap.codecs for number in lost)
    assert changes_to_nothing(tap) == []


def test_a_buffered_run_counts_what_was_fetched(tap, tmp_path):
    """An institution's row stands where its update arrived, or after the last step."""
    buffered = "network.aggregation={kind: buffered-async, buffer_size: 2}"
    run(tiny(SLOW, buffered), tmp_path)
    rounds, rows, summary = tables(tmp_path)
    fetched = {(r["round"] - r["staleness"], r["institution"]): r["downlink_bytes"] for r in rows}
    assert fetched == dict(tap.down)
    arrived = {(r["round"], r["institution"]): r["uplink_bytes"] for r in rows}
    assert {key: n for key, n in arrived.items() if n} == dict(tap.up)
    assert [r["status"] for r in rows if r["institution"] == "med-01"] == ["late"]
    assert sum(row["downlink_bytes"] for row in rounds) == tap.down.total()
    assert summary["uplink_bytes_total"] == tap.up.total()
