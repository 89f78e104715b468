"""SCAFFOLD: control variates that correct the drift of local steps.

Karimireddy et al., 2020, arXiv 1910.06378, Algorithm 1, option II, block by block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedfuse_ray.blocks import Blocks
from fedfuse_ray.federation.server.strategies.base import CONTROL, Aggregate, LocalRule

_CONTROLS = LocalRule(controls=True)


@dataclass(frozen=True)
class Scaffold:
    """Step along the mean update, and keep the mean control variate.

    An institution's own control variate stays with it; the change is sent as blocks named
    `control/<block>` beside the update, which doubles the uplink.
    """

    server_learning_rate: float
    local: LocalRule = _CONTROLS

    def init(self, weights: Blocks) -> Blocks:
        """Return control variates of zero."""
        return {CONTROL + name: np.zeros_like(vector) for name, vector in weights.items()}

    def broadcast(self, state: Blocks) -> Blocks:
        """Return the server's control variates."""
        return {name: vector for name, vector in state.items() if name.startswith(CONTROL)}

    def apply(self, state: Blocks, weights: Blocks, aggregate: Aggregate) -> tuple[Blocks, Blocks]:
        """Step, then move the control variates by |S|/N times their mean change."""
        weights, state = dict(weights), dict(state)
        for name, mean in aggregate.mean.items():
            if name.startswith(CONTROL):
                share = np.float32(aggregate.participation[name])
                state[name] = state[name] + share * mean
            else:
                weights[name] = weights[name] + np.float32(self.server_learning_rate) * mean
        return weights, state
