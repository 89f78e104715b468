from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

from fedfuse_ray.config.settings.network import LinkConfig, NetworkConfig
from fedfuse_ray.errors import InputError
from fedfuse_ray.network import (
    PRESETS,
    back_online,
    reachable,
    resolve,
    throughput_mbps,
    transfer_seconds,
)
from fedfuse_ray.network.links import CAMPUS, METRO, RURAL

NAMES = ("med-01", "med-02", "mat-01", "env-01")
LOSSLESS = LinkConfig(up_mbps=8, down_mbps=80, latency_ms=100)


def still():
    return np.random.Generator(np.random.SFC64(0))


def test_mixed_deals_its_links_out_in_order():
    links = resolve(NetworkConfig(preset="mixed"), NAMES)
    assert list(links) == list(NAMES)
    assert list(links.values()) == [CAMPUS, METRO, RURAL, CAMPUS]


def test_an_own_link_replaces_one_and_leaves_the_others():
    config = NetworkConfig(preset="mixed", links={"med-02": LOSSLESS})
    assert list(resolve(config, NAMES).values()) == [CAMPUS, LOSSLESS, RURAL, CAMPUS]


def test_the_ideal_network_has_no_links_but_those_given():
    assert set(resolve(NetworkConfig(), NAMES).values()) == {None}
    links = resolve(NetworkConfig(links={"env-01": RURAL}), NAMES)
    assert [links[name] for name in NAMES] == [None, None, None, RURAL]


def test_every_preset_of_the_config_is_there():
    allowed = NetworkConfig.model_json_schema()["properties"]["preset"]["enum"]
    assert set(PRESETS) == set(allowed)


@pytest.mark.parametrize(
    ("wrong", "said"), [("med-1", "did you mean 'med-01'"), ("zzz", "there are med-01, med-02")]
)
def test_a_link_of_an_unknown_institution_is_named(wrong, said):
    with pytest.raises(InputError, match=said) as caught:
        resolve(NetworkConfig(links={wrong: LOSSLESS}), NAMES)
    assert (caught.value.field, caught.value.value) == ("network.links", wrong)


def test_rural_uplinks_are_the_slowest_and_lopsided():
    megabyte = [transfer_seconds(10**6, p.up_mbps, p, still()) for p in (CAMPUS, METRO, RURAL)]
    assert megabyte == sorted(megabyte)
    assert megabyte[2] > 5 * megabyte[1]
    assert RURAL.up_mbps < RURAL.down_mbps / 5


def test_without_loss_and_jitter_the_arithmetic_is_exact():
    assert transfer_seconds(10**6, 8, LOSSLESS, still()) == pytest.approx(0.1 + 1.0)


def test_mathis_throughput_by_hand():
    link = LinkConfig(up_mbps=1000, down_mbps=1000, latency_ms=50, loss=0.01)
    # 1460 bytes every 0.1 s are 0.1168 Mb/s; times sqrt(1.5 / 0.01) = 12.247.
    expected = 0.1168 * 12.24745
    assert throughput_mbps(1000, link) == pytest.approx(expected, rel=1e-5)
    assert throughput_mbps(0.5, link) == 0.5
    # One byte in a hundred goes twice.
    seconds = 0.05 + 8 / 0.99 / expected
    assert transfer_seconds(10**6, 1000, link, still()) == pytest.approx(seconds, rel=1e-5)


def test_loss_without_distance_does_not_slow_tcp():
    near = LinkConfig(up_mbps=10, down_mbps=10, loss=0.01)
    assert throughput_mbps(10, near) == 10


def test_jitter_only_ever_delays_and_has_its_scale():
    shaky = LinkConfig(up_mbps=8, down_mbps=8, latency_ms=10, jitter_ms=20)
    generator = still()
    delays = np.array([transfer_seconds(1000, 8, shaky, generator) for _ in range(4000)])
    extra = delays - (0.01 + 0.001)
    assert extra.min() >= 0
    assert extra.mean() == pytest.approx(0.02 * math.sqrt(2 / math.pi), rel=0.05)


@pytest.mark.parametrize(("link", "nbytes"), [(None, 10**9), (RURAL, 0)])
def test_nothing_sent_or_an_ideal_link_takes_no_time_but_a_draw(link, nbytes):
    generator, fresh = still(), still()
    assert transfer_seconds(nbytes, 3, link, generator) == 0.0
    fresh.standard_normal()
    assert generator.random() == fresh.random()


def test_availability_is_a_share_of_rounds_and_repeats():
    link = LinkConfig(up_mbps=1, down_mbps=1, availability=0.7)
    found = [reachable(link, 3, "a", round, 0.0) for round in range(1, 2001)]
    assert np.mean(found) == pytest.approx(0.7, abs=0.03)
    assert found == [reachable(link, 3, "a", round, 0.0) for round in range(1, 2001)]
    assert found != [reachable(link, 3, "b", round, 0.0) for round in range(1, 2001)]
    assert found != [reachable(link, 4, "a", round, 0.0) for round in range(1, 2001)]


def test_an_ideal_link_and_one_always_available_answer_always():
    sure = LinkConfig(up_mbps=1, down_mbps=1)
    assert all(reachable(link, 0, "a", r, 5.0) for link in (None, sure) for r in range(200))


@pytest.mark.parametrize(
    ("now", "online"),
    [(0, True), (9.9, True), (10, False), (19.9, False), (20, True), (110, True), (35, False)],
)
def test_offline_spans_hold_their_start_and_not_their_end(now, online):
    link = LinkConfig(up_mbps=1, down_mbps=1, offline=((10, 20), (30, 40)))
    assert reachable(link, 0, "a", 1, now) == online


@pytest.mark.parametrize(("now", "online"), [(5, True), (15, False), (105, True), (115, False)])
def test_offline_spans_repeat_with_their_period(now, online):
    link = LinkConfig(up_mbps=1, down_mbps=1, offline=((10, 20),), offline_period=100)
    assert reachable(link, 0, "a", 1, now) == online


@pytest.mark.parametrize(
    ("spans", "period", "now", "expected"),
    [
        (((10, 20),), None, 5, 5),
        (((10, 20),), None, 12, 20),
        (((10, 20), (20, 25)), None, 12, 25),
        (((15, 25), (10, 20)), None, 12, 25),
        (((0, 5), (90, 100)), 100, 195, 205),
        (((0, 50), (50, 100)), 100, 195, math.inf),
    ],
)
def test_when_an_institution_is_back(spans, period, now, expected):
    link = LinkConfig(up_mbps=1, down_mbps=1, offline=spans, offline_period=period)
    assert back_online(link, now) == pytest.approx(expected)
    assert back_online(None, now) == now


@pytest.mark.parametrize("span", [(5, 5), (6, 5), (-1, 5), (5, 101)])
def test_spans_that_are_none_are_refused(span):
    with pytest.raises(ValidationError, match="offline"):
        LinkConfig(up_mbps=1, down_mbps=1, offline=(span,), offline_period=100)
