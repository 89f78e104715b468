"""The clock never runs the wrong way: more bytes, less bandwidth, more loss take longer."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from fedfuse_ray.config.settings.network import LinkConfig
from fedfuse_ray.network import (
    Flight,
    Timing,
    Work,
    back_online,
    close_round,
    next_buffer,
    reachable,
    staleness_weight,
    throughput_mbps,
    timing,
    transfer_seconds,
)

sizes = st.integers(0, 10**10)
bandwidths = st.floats(0.01, 1e5)
losses = st.floats(0.0, 0.5)
seeds = st.integers(0, 2**32)
seconds = st.floats(0.0, 1e6)


@st.composite
def links(draw, **fixed):
    drawn = {
        "up_mbps": draw(bandwidths),
        "down_mbps": draw(bandwidths),
        "latency_ms": draw(st.floats(0.0, 1e3)),
        "jitter_ms": draw(st.floats(0.0, 1e3)),
        "loss": draw(losses),
    }
    return LinkConfig(**drawn | fixed)


@st.composite
def intervals(draw):
    period = draw(st.floats(1.0, 1e5))
    ends = draw(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=6, unique=True))
    ends = sorted(period * end for end in ends)
    spans = tuple(zip(ends[::2], ends[1::2], strict=False))
    assume(all(start < end for start, end in spans))
    return LinkConfig(up_mbps=1, down_mbps=1, offline=spans, offline_period=period)


def took(nbytes, mbps, link, seed):
    return transfer_seconds(nbytes, mbps, link, np.random.default_rng(seed))


@given(links(), bandwidths, sizes, sizes, seeds)
def test_more_bytes_take_longer(link, mbps, first, second, seed):
    few, many = sorted((first, second))
    assert took(few, mbps, link, seed) <= took(many, mbps, link, seed)


@given(links(), bandwidths, bandwidths, sizes, seeds)
def test_more_bandwidth_never_takes_longer(link, first, second, nbytes, seed):
    narrow, wide = sorted((first, second))
    assert took(nbytes, wide, link, seed) <= took(nbytes, narrow, link, seed)


@given(links(), losses, losses, bandwidths, sizes, seeds)
def test_more_loss_never_helps(link, first, second, mbps, nbytes, seed):
    clean, lossy = (link.model_copy(update={"loss": p}) for p in sorted((first, second)))
    assert throughput_mbps(mbps, lossy) <= throughput_mbps(mbps, clean)
    assert took(nbytes, mbps, clean, seed) <= took(nbytes, mbps, lossy, seed)


@given(links(), bandwidths, st.integers(1, 10**10), seeds)
def test_nothing_beats_light_and_bandwidth(link, mbps, nbytes, seed):
    least = link.latency_ms / 1e3 + 8e-6 * nbytes / mbps
    assert took(nbytes, mbps, link, seed) >= least * (1 - 1e-12)


@given(links(), sizes, sizes, st.integers(0, 10**6), seeds, st.integers(1, 10**4))
def test_a_timing_repeats_and_is_never_negative(link, down, up, specimens, seed, round):
    work = Work(down, up, specimens, 1000.0, speed=0.5)
    first = timing(link, work, seed=seed, name="a", round=round)
    assert first == timing(link, work, seed=seed, name="a", round=round)
    assert min(first.download, first.compute, first.upload) >= 0.0
    assert first.total == first.download + first.compute + first.upload


@given(st.lists(seconds, min_size=1, max_size=20), st.floats(1e-3, 1e6), st.booleans())
def test_a_deadline_never_lengthens_a_round(totals, deadline, someone_is_absent):
    timings = {f"i{index}": Timing(0.0, total, 0.0) for index, total in enumerate(totals)}
    waited = close_round(timings, deadline)
    assert waited.seconds <= close_round(timings, None).seconds
    assert set(waited.late) == {name for name, t in timings.items() if t.total > deadline}
    assert bool(waited.late) == (waited.seconds < max(totals))
    closing = close_round(timings, deadline, ["gone"] if someone_is_absent else [])
    assert waited.seconds <= closing.seconds <= deadline
    assert closing.late == waited.late


@given(intervals(), st.floats(0.0, 1e6))
def test_back_online_is_the_first_moment_that_is_free(link, now):
    back = back_online(link, now)
    assert back >= now
    assert (back == now) == reachable(link, 0, "a", 1, now)
    if np.isfinite(back):
        assert reachable(link, 0, "a", 1, back)
        between = np.linspace(now, back, 9)[:-1]
        assert not any(reachable(link, 0, "a", 1, moment) for moment in between if moment < back)


@given(st.lists(seconds, max_size=30), st.integers(1, 12))
def test_the_buffers_of_a_run_take_every_update_once_in_order(arrivals, size):
    flights = [Flight(f"i{n}", 0, 0.0, arrives) for n, arrives in enumerate(arrivals)]
    taken = []
    while left := [flight for flight in flights if flight not in taken]:
        taken.extend(next_buffer(left, size))
    assert [flight.arrives for flight in taken] == sorted(arrivals)
    assert len(set(taken)) == len(flights)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0.0, 10.0))
def test_older_updates_never_weigh_more(first, second, exponent):
    young, old = sorted((first, second))
    assert 0.0 <= staleness_weight(old, exponent) <= staleness_weight(young, exponent) <= 1.0
