"""The network that the federation is simulated over, and how long the server waits."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from fedfuse_ray.config.settings.base import Config


class LinkConfig(Config):
    """One institution's link to the server.

    Attributes:
        up_mbps: Uplink bandwidth, megabits a second.
        down_mbps: Downlink bandwidth.
        latency_ms: One-way delay.
        jitter_ms: Standard deviation of the delay.
        loss: Probability that a packet is lost; it lowers the throughput of a TCP stream.
        availability: Probability that the institution can be reached in a round.
        offline: Spans of simulated time, `[from, to)` in seconds, when it can't be reached.
        offline_period: Seconds after which these spans repeat; null never repeats them.
    """

    up_mbps: float = Field(gt=0.0)
    down_mbps: float = Field(gt=0.0)
    latency_ms: float = Field(0.0, ge=0.0)
    jitter_ms: float = Field(0.0, ge=0.0)
    loss: float = Field(0.0, ge=0.0, lt=1.0)
    availability: float = Field(1.0, gt=0.0, le=1.0)
    offline: tuple[tuple[float, float], ...] = ()
    offline_period: float | None = Field(None, gt=0.0)

    @model_validator(mode="after")
    def _spans_are_ordered(self) -> LinkConfig:
        for start, end in self.offline:
            if not 0.0 <= start < end:
                raise ValueError(f"offline: [{start}, {end}) is no span; give 0 <= from < to")
            if self.offline_period is not None and end > self.offline_period:
                raise ValueError(
                    f"offline: [{start}, {end}) ends after offline_period {self.offline_period}"
                )
        return self


class AggregationConfig(Config):
    """When the server closes a round.

    Attributes:
        kind: `sync` waits for all that can be reached; `deadline` closes the round after
            `deadline_seconds` of simulated time, and late institutions have dropped out;
            `buffered-async` steps whenever `buffer_size` updates have arrived, each weighted by
            its staleness (Nguyen et al., 2022, FedBuff, arXiv 2106.06639).
        deadline_seconds: Simulated seconds from a round's start to the last update's arrival.
        buffer_size: Updates a step.
        staleness_exponent: An update that is s steps old weighs (1 + s)^-exponent.
    """

    kind: Literal["sync", "deadline", "buffered-async"] = "sync"
    deadline_seconds: float | None = Field(None, gt=0.0)
    buffer_size: int = Field(5, ge=1)
    staleness_exponent: float = Field(0.5, ge=0.0)

    @model_validator(mode="after")
    def _deadline_is_given(self) -> AggregationConfig:
        if (self.kind == "deadline") != (self.deadline_seconds is not None):
            raise ValueError("deadline_seconds: give it with kind 'deadline', and only then")
        return self


class NetworkConfig(Config):
    """Links, computers and deadlines, on a virtual clock that never waits.

    Attributes:
        preset: `ideal` (no delay at all), `campus`, `metro`, `rural`, or `mixed` (the three in
            turn over the institutions).
        links: An institution's own link, by name.
        specimens_per_second: Training specimens a second of an institution whose
            `hardware.speed` is 1.
        aggregation: When the server closes a round.
    """

    preset: Literal["ideal", "campus", "metro", "rural", "mixed"] = "ideal"
    links: dict[str, LinkConfig] = Field({})
    specimens_per_second: float = Field(1000.0, gt=0.0)
    aggregation: AggregationConfig = AggregationConfig()
