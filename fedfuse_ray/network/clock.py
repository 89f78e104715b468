"""The virtual clock: how long an institution takes in a round, and when the server closes it.

| institutions | deadline | the server waits | late |
|---|---|---|---|
| all answer in time | any or none | for the slowest | nobody |
| some would answer later | none | for the slowest | nobody |
| some would answer later | d | d | those |
| some can't be reached | none | for the slowest of the others | nobody |
| some can't be reached | d | d: the server can't tell silence from delay | those later than d |
| nobody can be reached | none | 0 | nobody |
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from fedfuse_ray import rng
from fedfuse_ray.config.settings.network import LinkConfig
from fedfuse_ray.network.transfer import expected_transfer_seconds, transfer_seconds


@dataclass(frozen=True)
class Work:
    """What a round asks of an institution.

    Attributes:
        downlink_bytes: Length of what it receives before it computes.
        uplink_bytes: Length of what it then sends.
        specimens: Specimens that it computes on, once for each pass over them.
        specimens_per_second: Of a computer whose speed is 1.
        speed: The institution's computer, relative to that one.
    """

    downlink_bytes: int
    uplink_bytes: int
    specimens: int
    specimens_per_second: float
    speed: float = 1.0

    @property
    def compute_seconds(self) -> float:
        """Seconds of computing."""
        return self.specimens / (self.specimens_per_second * self.speed)


@dataclass(frozen=True)
class Timing:
    """An institution's simulated seconds in a round: it receives, computes, sends."""

    download: float
    compute: float
    upload: float

    @property
    def total(self) -> float:
        """Seconds from the round's start to the arrival of the update."""
        return self.download + self.compute + self.upload


@dataclass(frozen=True)
class Closing:
    """The end of a round.

    Attributes:
        seconds: How long the server waited.
        late: Who had not answered by then, in the order in which they were given.
    """

    seconds: float
    late: tuple[str, ...]


def timing(link: LinkConfig | None, work: Work, *, seed: int, name: str, round: int) -> Timing:
    """Return the institution's seconds in a round.

    On the ideal link, None, receiving and sending take no time; computing still does. Seed, name
    and round alone name the jitter's stream, so the result is the same on any executor.

    Args:
        link: The institution's link.
        work: What it receives, computes and sends.
        seed: The run's seed.
        name: The institution.
        round: From 1.
    """
    generator = rng.generator(seed, "network", name, round)
    down, up = _bandwidths(link)
    return Timing(
        download=transfer_seconds(work.downlink_bytes, down, link, generator),
        compute=work.compute_seconds,
        upload=transfer_seconds(work.uplink_bytes, up, link, generator),
    )


def expected_seconds(link: LinkConfig | None, work: Work) -> float:
    """Return the mean of `timing`'s total over the jitter, as a server would estimate it."""
    down, up = _bandwidths(link)
    download = expected_transfer_seconds(work.downlink_bytes, down, link)
    upload = expected_transfer_seconds(work.uplink_bytes, up, link)
    return download + work.compute_seconds + upload


def _bandwidths(link: LinkConfig | None) -> tuple[float, float]:
    return (0.0, 0.0) if link is None else (link.down_mbps, link.up_mbps)


def exchange_seconds(
    link: LinkConfig | None,
    *,
    seed: int,
    name: str,
    round: int,
    step: str | int,
    uplink_bytes: int,
    downlink_bytes: int,
) -> float:
    """Return the seconds of one step of a protocol: the institution's message, then the answer.

    Args:
        link: The institution's link.
        seed: The run's seed.
        name: The institution.
        round: From 1.
        step: Tells the steps of a round apart; each has a jitter stream of its own.
        uplink_bytes: Length of the message.
        downlink_bytes: Length of the server's answer.
    """
    if link is None:
        return 0.0
    generator = rng.generator(seed, "network", name, round, step)
    up = transfer_seconds(uplink_bytes, link.up_mbps, link, generator)
    return up + transfer_seconds(downlink_bytes, link.down_mbps, link, generator)


def close_round(
    timings: Mapping[str, Timing], deadline: float | None, absent: Collection[str] = ()
) -> Closing:
    """Return when the server closes a round, and who came too late.

    Args:
        timings: The seconds of each institution that could be reached.
        deadline: Seconds after which the server closes the round; None waits for all of `timings`.
        absent: Institutions that can't be reached. Without a deadline the server does not wait
            for them; with one it waits until then, since an answer might still come.

    Returns:
        The wait, never longer than the deadline. An update that arrives on the deadline is in
        time.

    >>> timings = {"med-01": Timing(1.0, 2.0, 1.0), "med-02": Timing(5.0, 9.0, 5.0)}
    >>> close_round(timings, deadline=10.0)
    Closing(seconds=10.0, late=('med-02',))
    """
    slowest = max((timing.total for timing in timings.values()), default=0.0)
    if deadline is None:
        return Closing(slowest, ())
    late = tuple(name for name, timing in timings.items() if timing.total > deadline)
    return Closing(deadline if late or absent else slowest, late)
