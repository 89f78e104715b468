from __future__ import annotations

from dataclasses import replace

import pytest

from fedfuse_ray import network
from fedfuse_ray.config.settings.network import LinkConfig
from fedfuse_ray.network import (
    Closing,
    Flight,
    Timing,
    Work,
    close_round,
    exchange_seconds,
    next_buffer,
    staleness_weight,
    timing,
)

LINK = LinkConfig(up_mbps=8, down_mbps=80, latency_ms=100)
SHAKY = LinkConfig(up_mbps=8, down_mbps=80, latency_ms=100, jitter_ms=50)
WORK = Work(downlink_bytes=10**7, uplink_bytes=10**6, specimens=500, specimens_per_second=1000)
NAMED = {"seed": 1, "name": "med-01", "round": 3}


def seconds(*totals):
    return {f"i{index}": Timing(0.0, total, 0.0) for index, total in enumerate(totals)}


def test_every_name_of_the_package_is_there():
    assert sorted(network.__all__) == sorted(set(network.__all__))
    assert all(hasattr(network, name) for name in network.__all__)


def test_a_round_by_hand():
    found = timing(LINK, WORK, **NAMED)
    assert found.download == pytest.approx(0.1 + 1.0)
    assert found.compute == pytest.approx(0.5)
    assert found.upload == pytest.approx(0.1 + 1.0)
    assert found.total == pytest.approx(2.7)


def test_a_faster_computer_only_computes_faster():
    fast = timing(LINK, replace(WORK, speed=2.0), **NAMED)
    assert fast.compute == pytest.approx(0.25)
    assert fast.upload == timing(LINK, WORK, **NAMED).upload


def test_on_the_ideal_link_only_computing_takes_time():
    assert timing(None, WORK, **NAMED) == Timing(0.0, 0.5, 0.0)
    assert exchange_seconds(None, **NAMED, step=1, uplink_bytes=9, downlink_bytes=9) == 0.0


@pytest.mark.parametrize("other", [{"seed": 2}, {"name": "med-02"}, {"round": 4}])
def test_jitter_depends_on_seed_institution_and_round(other):
    assert timing(SHAKY, WORK, **NAMED) == timing(SHAKY, WORK, **NAMED)
    assert timing(SHAKY, WORK, **NAMED) != timing(SHAKY, WORK, **NAMED | other)


def test_receiving_less_does_not_change_the_luck_of_sending():
    less = timing(SHAKY, replace(WORK, downlink_bytes=0), **NAMED)
    assert less.download == 0.0
    assert less.upload == timing(SHAKY, WORK, **NAMED).upload


def test_an_exchange_is_a_message_and_its_answer():
    sizes = {"uplink_bytes": 10**6, "downlink_bytes": 10**7}
    assert exchange_seconds(LINK, **NAMED, step="mask", **sizes) == pytest.approx(2 * 1.1)
    one_way = exchange_seconds(LINK, **NAMED, step="mask", uplink_bytes=10**6, downlink_bytes=0)
    assert one_way == pytest.approx(1.1)
    shaken = [exchange_seconds(SHAKY, **NAMED, step=step, **sizes) for step in ("mask", "unmask")]
    assert shaken[0] != shaken[1]


@pytest.mark.parametrize(
    ("totals", "deadline", "absent", "expected"),
    [
        ((1.0, 4.0), None, (), Closing(4.0, ())),
        ((1.0, 4.0), 5.0, (), Closing(4.0, ())),
        ((1.0, 4.0), 4.0, (), Closing(4.0, ())),
        ((9.0, 1.0, 4.0), 3.0, (), Closing(3.0, ("i0", "i2"))),
        ((1.0, 2.0), None, ("gone",), Closing(2.0, ())),
        ((1.0, 2.0), 3.0, ("gone",), Closing(3.0, ())),
        ((), 3.0, ("gone",), Closing(3.0, ())),
        ((), None, ("gone",), Closing(0.0, ())),
    ],
)
def test_when_a_round_closes(totals, deadline, absent, expected):
    assert close_round(seconds(*totals), deadline, absent) == expected


def test_the_buffer_takes_the_earliest_and_the_first_institution_of_equals():
    arrivals = {"a": 5.0, "b": 2.0, "c": 3.0, "d": 2.0}
    flights = [Flight(name, 0, 0.0, arrives) for name, arrives in arrivals.items()]
    assert [f.institution for f in next_buffer(flights, 3)] == ["b", "d", "c"]
    assert [f.institution for f in next_buffer(reversed(flights), 2)] == ["d", "b"]
    assert len(next_buffer(flights, 9)) == 4
    assert next_buffer([], 2) == ()
    with pytest.raises(ValueError, match="at least one"):
        next_buffer(flights, 0)


def test_the_weight_of_a_stale_update():
    assert staleness_weight(0, 0.5) == 1.0
    assert staleness_weight(3, 0.5) == pytest.approx(0.5)
    assert staleness_weight(7, 0.0) == 1.0
    with pytest.raises(ValueError, match="newer"):
        staleness_weight(-1, 0.5)
