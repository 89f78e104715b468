"""Rounds over simulated links: what the clock shows, who is late, who can be reached."""

from __future__ import annotations

import json
import math

import pytest

from fedfuse_ray import rng
from fedfuse_ray.runs.running import run
from tests.support.federations import guarantee_of, plan_of, tiny
from tests.support.watching import (
    DEADLINE,
    NAMES,
    NO_COLLUDERS,
    SLOW,
    Watched,
    rows_by_key,
    seconds_of,
    status_of,
    tables,
)


def transfer(nbytes, mbps, link, deviate):
    """Delay, jitter, bits over what TCP carries: Mathis et al., 1997, with 1460-byte segments."""
    latency, jitter, loss = link
    delay = (latency + jitter * abs(deviate)) / 1e3
    carried = 8 * 1460 / (2 * latency / 1e3) * math.sqrt(3 / 2 / loss) / 1e6 if loss else mbps
    return delay + 8 * nbytes / 1e6 / (1 - loss) / min(mbps, carried)


@pytest.mark.parametrize("link", [(0.0, 0.0, 0.0), (40.0, 0.0, 0.0), (30.0, 12.0, 0.02)])
def test_an_institutions_seconds_are_those_computed_by_hand(tmp_path, link):
    latency, jitter, loss = link
    text = f"up_mbps: 1.0, down_mbps: 8.0, latency_ms: {latency}, jitter_ms: {jitter}, loss: {loss}"
    experiment = tiny(
        f"network.links={{med-02: {{{text}}}}}",
        "network.specimens_per_second=200",
        "training.local_epochs=2",
        "compression.codec=modint",
        "seed=3",
    )
    run(experiment, tmp_path)
    specimens = plan_of(experiment).by_name["med-02"].specimens
    rounds, _ = tables(tmp_path)
    rows, now = rows_by_key(tmp_path), 0.0
    for row in rounds:
        number = row["round"]
        own = rows[number, "med-02"]
        draws = rng.generator(3, "network", "med-02", number).standard_normal(2)
        assert own["download_seconds"] == pytest.approx(
            transfer(own["downlink_bytes"], 8.0, link, draws[0])
        )
        assert own["compute_seconds"] == pytest.approx(2 * specimens / 200)
        assert own["upload_seconds"] == pytest.approx(
            transfer(own["uplink_bytes"], 1.0, link, draws[1])
        )
        # The others' links are ideal, yet their computing takes its time.
        others = [rows[number, who] for who in NAMES if who != "med-02"]
        assert all(o["download_seconds"] == o["upload_seconds"] == 0.0 for o in others)
        longest = max(seconds_of(r) for r in (own, *others))
        assert row["simulated_seconds"] == pytest.approx(longest)
        assert row["simulated_start"] == pytest.approx(now)
        now += row["simulated_seconds"]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["time"]["simulated_seconds"] == pytest.approx(now)


def test_a_slower_computer_takes_longer(tmp_path):
    run(tiny("institutions.med-01.hardware.speed=0.25", "training.rounds=1"), tmp_path)
    rows = rows_by_key(tmp_path)
    specimens = {who: rows[1, who]["specimens"] for who in NAMES}
    assert rows[1, "med-01"]["compute_seconds"] == pytest.approx(specimens["med-01"] / 250)
    assert rows[1, "mat-01"]["compute_seconds"] == pytest.approx(specimens["mat-01"] / 1000)


@pytest.mark.parametrize("paradigm", ["fedfuse_nonprivate", "fedfuse"])
def test_compression_saves_time_on_rural_links(tmp_path, paradigm):
    strong = ("compression.codec=modint", "compression.downlink.codec=modint")
    wide = ("network.preset=rural", "model.encoder.width=16", "model.embedding_dim=32")
    took = [
        run(tiny(*wide, *extra, paradigm=paradigm), tmp_path / str(len(extra))).time
        for extra in ((), strong)
    ]
    assert took[1].simulated_seconds < 0.7 * took[0].simulated_seconds


@pytest.mark.parametrize("paradigm", ["fedfuse_nonprivate", "fedfuse"])
def test_a_deadline_drops_the_slow_and_the_run_ends(tmp_path, paradigm):
    summary = run(tiny(SLOW, DEADLINE, NO_COLLUDERS, paradigm=paradigm), tmp_path)
    assert summary.rounds == 3
    rounds, rows = tables(tmp_path)
    assert [row["status"] for row in rows] == 3 * ["late", "sent", "sent"]
    for row in rounds:
        assert (row["participants"], row["dropouts"]) == (2, 1)
        assert row["loss"] is None if paradigm == "fedfuse" else row["loss"] > 0
        if paradigm == "fedfuse_nonprivate":
            assert row["simulated_seconds"] == 2.0
        else:
            assert row["simulated_seconds"] > 2.0
    for row in rows:
        assert (seconds_of(row) > 2.0) == (row["status"] == "late")
        assert (row["payload_bytes"] == 0) == (row["status"] == "late")
        assert row["steps"] > 0


def test_without_a_deadline_the_server_waits_for_the_slow(tmp_path):
    run(tiny(SLOW), tmp_path)
    assert set(status_of(tmp_path).values()) == {"sent"}
    rounds, _ = tables(tmp_path)
    slow = seconds_of(rows_by_key(tmp_path)[1, "med-01"])
    assert rounds[0]["simulated_seconds"] == pytest.approx(slow)
    assert slow > 20


def test_in_time_for_all_is_the_run_without_a_deadline(tmp_path):
    link = "network.links={med-01: {up_mbps: 1.0, down_mbps: 10.0}}"
    free = run(tiny(link), tmp_path / "free")
    bound = run(tiny(link, DEADLINE), tmp_path / "bound")
    # The account knows one run more on the same records.
    alike = {"time": bound.time, "privacy": bound.privacy}
    assert bound == free.model_copy(update=alike)
    assert guarantee_of(bound) == guarantee_of(free)
    assert bound.time.simulated_seconds == pytest.approx(free.time.simulated_seconds)


def test_the_late_count_as_much_as_the_absent(tmp_path):
    """Nothing of their update gets in: a federation that they can't reach ends the same."""
    away = "network.links={med-01: {up_mbps: 10.0, down_mbps: 10.0, offline: [[0.0, 1e9]]}}"
    late = run(tiny(SLOW, DEADLINE), tmp_path / "late")
    absent = run(tiny(away), tmp_path / "absent")
    everyone = run(tiny(), tmp_path / "everyone")
    assert late.weights_sha256 == absent.weights_sha256 != everyone.weights_sha256
    rows = rows_by_key(tmp_path / "absent")
    assert {rows[number, "med-01"]["status"] for number in (1, 2, 3)} == {"absent"}
    assert seconds_of(rows[1, "med-01"]) == 0.0


@pytest.mark.parametrize("paradigm", ["fedfuse_nonprivate", "fedfuse"])
def test_a_deadline_waits_for_who_can_not_be_reached(tmp_path, paradigm):
    away = "network.links={med-01: {up_mbps: 10.0, down_mbps: 10.0, offline: [[0.0, 3.0]]}}"
    run(tiny(away, DEADLINE, NO_COLLUDERS, paradigm=paradigm), tmp_path)
    rounds, _ = tables(tmp_path)
    told = [status_of(tmp_path)[number, "med-01"] for number in (1, 2, 3)]
    assert told == ["absent", "absent", "sent"]
    assert [row["simulated_start"] for row in rounds] == pytest.approx([0.0, 2.0, 4.0])
    assert rounds[2]["simulated_seconds"] < 1.0


def test_a_round_begins_when_somebody_is_back(tmp_path):
    def away(*ends):
        spans = [f"{who}: {{up_mbps: 10.0, down_mbps: 10.0, offline: [[0.0, {end}]]}}"
                 for who, end in zip(NAMES, ends, strict=True)]  # fmt: skip
        return f"network.links={{{', '.join(spans)}}}"

    run(tiny(away(80.0, 50.0, 50.04), "training.rounds=4"), tmp_path)
    rounds, _ = tables(tmp_path)
    assert rounds[0]["simulated_start"] == 50.0
    told = status_of(tmp_path)
    assert [told[1, who] for who in NAMES] == ["absent", "sent", "absent"]
    assert [told[2, who] for who in NAMES] == ["absent", "sent", "sent"]
    assert [row["dropouts"] for row in rounds] == [2, 1, 1, 1]
    assert rounds[1]["simulated_start"] == pytest.approx(50.0 + rounds[0]["simulated_seconds"])


def test_hours_repeat(tmp_path):
    text = "up_mbps: 10.0, down_mbps: 10.0, offline: [[0.0, 5.0], [8.0, 9.0]], offline_period: 10.0"
    links = f"network.links={{med-01: {{{text}}}}}"
    slow = "network.specimens_per_second=16.5"  # Rounds of a little over two seconds.
    run(tiny(links, slow, "training.rounds=12"), tmp_path)
    rounds, _ = tables(tmp_path)
    told = status_of(tmp_path)
    for row in rounds:
        hour = row["simulated_start"] % 10.0
        closed = hour < 5.0 or 8.0 <= hour < 9.0
        assert told[row["round"], "med-01"] == ("absent" if closed else "sent")
    assert rounds[-1]["simulated_start"] > 20.0
    assert len(set(told.values())) == 2


def test_availability_is_a_share_of_the_rounds(tmp_path):
    text = "up_mbps: 100.0, down_mbps: 100.0, availability: 0.6"
    links = ", ".join(f"{who}: {{{text}}}" for who in ("med-01", "med-02"))
    watched = Watched()
    settings = (f"network.links={{{links}}}", "training.rounds=20", "execution.evaluate_every=20")
    run(tiny(*settings), tmp_path, executor=watched)
    told = status_of(tmp_path)
    for who in ("med-01", "med-02"):
        absent = [told[number, who] == "absent" for number in range(1, 21)]
        assert 3 <= sum(absent) <= 14  # Binomial(20, 0.4): outside with 1 in 300.
    assert all(told[number, "mat-01"] == "sent" for number in range(1, 21))
    # The only owner's block stays as it is when it is away.
    for number, step in enumerate(watched.steps(), 1):
        assert step["encoder/mri"].any() == (told[number, "med-01"] == "sent")


def test_a_round_in_which_nobody_is_reached_passes(tmp_path):
    text = "up_mbps: 10.0, down_mbps: 10.0, availability: 0.2"
    links = ", ".join(f"{who}: {{{text}}}" for who in NAMES)
    watched = Watched()
    settings = (f"network.links={{{links}}}", "training.rounds=10", "execution.evaluate_every=10")
    run(tiny(*settings, DEADLINE), tmp_path, executor=watched)
    rounds, _ = tables(tmp_path)
    empty = [row["dropouts"] == 3 for row in rounds]
    assert any(empty)
    assert not all(empty)
    for row, step in zip(rounds, watched.steps(), strict=True):
        assert any(v.any() for v in step.values()) == (row["dropouts"] < 3)
        assert (row["loss"] is None) == (row["dropouts"] == 3)
