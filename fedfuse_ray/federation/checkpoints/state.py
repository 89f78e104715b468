"""What the parameter server knows between rounds, besides the weights: each part by its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedfuse_ray.blocks import Blocks
from fedfuse_ray.federation.messages.released import Released
from fedfuse_ray.federation.messages.updates import Update
from fedfuse_ray.privacy.accounting.adaptive_budget import Signal


@dataclass(frozen=True)
class NoiseHistory:
    """What an adaptive schedule chooses the next round's noise from.

    Attributes:
        spent: The factors of the rounds so far.
        signals: The estimated signal of each round that revealed something.
    """

    spent: tuple[float, ...] = ()
    signals: tuple[Signal, ...] = ()


@dataclass(frozen=True)
class ServerState:
    """The server's state; a strategy sees its own part alone.

    Attributes:
        strategy: The strategy's named vectors.
        average: The mean of the last rounds' models, by block, where that is what is released.
        held: What institutions hold after the broadcasts so far, where these send changes.
        tracked: Under EF21, the sum of all that the server has received so far.
        used: Round of the last update of an institution that an asynchronous server has used.
        released: The next round's terms that change with what was released.
        noise_history: What an adaptive schedule of the noise is computed from.
    """

    strategy: Blocks = field(default_factory=dict)
    average: Blocks = field(default_factory=dict)
    held: Blocks = field(default_factory=dict)
    tracked: Update = field(default_factory=Update)
    used: Mapping[str, int] = field(default_factory=dict)
    released: Released = field(default_factory=Released)
    noise_history: NoiseHistory = field(default_factory=NoiseHistory)
