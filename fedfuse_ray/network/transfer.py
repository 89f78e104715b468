"""How long a message takes: delay, jitter, bandwidth, and what packet loss does to TCP.

Reference: Mathis, Semke, Mahdavi and Ott, "The macroscopic behavior of the TCP congestion avoidance
algorithm", ACM SIGCOMM Computer Communication Review 27(3), 1997: a stream that loses a fraction
p of its packets carries about (MSS / RTT) sqrt(3/2) / sqrt(p). It holds for long transfers and p of
a few percent at most; beyond that, timeouts make a real stream slower than this model's.
"""

from __future__ import annotations

import math

import numpy as np

from fedfuse_ray.config.settings.network import LinkConfig

MSS_BYTES = 1460
"""Payload of a TCP segment in an Ethernet frame: 1500 bytes less 40 of headers."""


def throughput_mbps(mbps: float, link: LinkConfig) -> float:
    """Return what one TCP stream carries, in megabits a second.

    Args:
        mbps: The link's bandwidth in the direction of the transfer.
        link: Its delay, which is half the round trip, and its loss.

    Returns:
        At most `mbps`. Less where packets are lost over a distance: without delay or loss, TCP
        fills the link.

    >>> link = LinkConfig(up_mbps=100.0, down_mbps=100.0, latency_ms=50.0, loss=0.01)
    >>> round(throughput_mbps(100.0, link), 2)
    1.43
    """
    round_trip = 2.0 * link.latency_ms / 1e3
    if link.loss <= 0.0 or round_trip <= 0.0:
        return mbps
    stream = 8.0 * MSS_BYTES / round_trip * math.sqrt(1.5 / link.loss) / 1e6
    return min(mbps, stream)


def transfer_seconds(
    nbytes: int, mbps: float, link: LinkConfig | None, generator: np.random.Generator
) -> float:
    """Return the seconds from the first bit sent to the last bit received.

    Args:
        nbytes: Length of the message; a message of no bytes is not sent and takes no time.
        mbps: The link's bandwidth in the direction of the transfer, megabits a second.
        link: The link; None is the ideal one, on which nothing takes time.
        generator: Draws the jitter, one normal deviate a call: whoever sends less in one message
            meets the same jitter in the next.

    Returns:
        The one-way delay, plus the absolute value of the jitter, plus the bits sent over the
        throughput. Lost packets are sent again, which makes 1 / (1 - loss) of every byte.
    """
    return _seconds(nbytes, mbps, link, abs(float(generator.standard_normal())))


def expected_transfer_seconds(nbytes: int, mbps: float, link: LinkConfig | None) -> float:
    """Return the mean of `transfer_seconds` over the jitter."""
    return _seconds(nbytes, mbps, link, math.sqrt(2.0 / math.pi))


def _seconds(nbytes: int, mbps: float, link: LinkConfig | None, deviate: float) -> float:
    if link is None or nbytes <= 0:
        return 0.0
    delay = (link.latency_ms + link.jitter_ms * deviate) / 1e3
    megabits = 8e-6 * nbytes / (1.0 - link.loss)
    return delay + megabits / throughput_mbps(mbps, link)
