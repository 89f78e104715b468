"""What a strategy is: a rule at the institutions, and a step at the server."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from fedfuse_ray.blocks import Blocks


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
        controls: Mean change of their control variates under SCAFFOLD, block by block.
    """

    mean: Blocks
    steps: dict[str, float]
    participation: dict[str, float]
    controls: Blocks = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a federation stands after a step. Both parts are named: nobody mixes them up.

    Attributes:
        weights: The global model, by block.
        state: The strategy's own state, named vectors that a checkpoint keeps.
    """

    weights: Blocks
    state: Blocks


class Strategy(Protocol):
    """How averaged updates become new weights. State is explicit, and the strategy's alone.

    What else the server keeps (averages of models, clipping norms, codec settings) a strategy
    neither sees nor has to hand back.
    """

    @property
    def local(self) -> LocalRule:
        """What it changes about local training."""
        ...

    def init(self, weights: Blocks) -> Blocks:
        """Return the first state."""
        ...

    def controls(self, state: Blocks) -> Blocks:
        """Return the control variates that institutions need, by block; empty without any."""
        ...

    def apply(self, before: Standing, aggregate: Aggregate) -> Standing:
        """Step. Blocks that nobody sent stay as they are, and inputs are left unmodified."""
        ...
