"""Links, a virtual clock, stragglers: what a round would take between real institutions.

All of it is arithmetic on simulated seconds; nothing here waits, and equal seeds give equal times.
"""

from fedfuse_ray.network.availability import back_online, reachable
from fedfuse_ray.network.buffer import Flight, next_buffer, staleness_weight
from fedfuse_ray.network.clock import (
    Closing,
    Timing,
    Work,
    close_round,
    exchange_seconds,
    expected_seconds,
    timing,
)
from fedfuse_ray.network.links import PRESETS, resolve
from fedfuse_ray.network.transfer import throughput_mbps, transfer_seconds

__all__ = [
    "PRESETS",
    "Closing",
    "Flight",
    "Timing",
    "Work",
    "back_online",
    "close_round",
    "exchange_seconds",
    "expected_seconds",
    "next_buffer",
    "reachable",
    "resolve",
    "staleness_weight",
    "throughput_mbps",
    "timing",
    "transfer_seconds",
]
