"""What a strategy is: a rule at the institutions, and a step at the server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from fedfuse_ray.blocks import Blocks

CONTROL = "control/"
"""Prefix of SCAFFOLD's control variates, which travel as blocks of their own."""


@dataclass(frozen=True)
class LocalRule:
    """What a strategy changes about local training.

    Attributes:
        proximal_mu: Weight of FedProx's pull towards the global weights.
        controls: Correct gradients by SCAFFOLD's control variates, and send their change.
        normalise: Divide the update by the number of local steps (FedNova).
    """

    proximal_mu: float = 0.0
    controls: bool = False
    normalise: bool = False


PLAIN = LocalRule()
"""Local training as it is."""


@dataclass(frozen=True)
class Aggregate:
    """The server's view of a round: block-wise means, never a single institution's update.

    Attributes:
        mean: Weighted mean of the updates, block by block over the owners that took part.
        steps: Weighted mean of local steps, block by block.
        participation: Fraction of a block's owners that took part.
    """

    mean: Blocks
    steps: dict[str, float]
    participation: dict[str, float]


class Strategy(Protocol):
    """How averaged updates become new weights. State is explicit and belongs to the caller."""

    @property
    def local(self) -> LocalRule:
        """What it changes about local training."""
        ...

    def init(self, weights: Blocks) -> Blocks:
        """Return the first server state, named vectors that a checkpoint keeps."""
        ...

    def broadcast(self, state: Blocks) -> Blocks:
        """Return the vectors that institutions need besides the weights, by block name."""
        ...

    def apply(self, state: Blocks, weights: Blocks, aggregate: Aggregate) -> tuple[Blocks, Blocks]:
        """Return (new weights, new state). Blocks that nobody sent stay as they are."""
        ...
