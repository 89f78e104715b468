"""SCAFFOLD: control variates that correct the drift of local steps.

Karimireddy et al., 2020, arXiv 1910.06378, Algorithm 1, option II, block by block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedfuse_ray.blocks import Blocks
from fedfuse_ray.federation.strategies.base import Aggregate, LocalRule, Standing

_CONTROLS = LocalRule(controls=True)


@dataclass(frozen=True)
class Scaffold:
    """Step along the mean update, and keep the mean control variate.

    An institution's own control variate stays with it; its change is sent beside the update, which
    doubles the uplink. The state is the server's control variates, by block.
    """

    server_learning_rate: float
    local: LocalRule = _CONTROLS

    def init(self, weights: Blocks) -> Blocks:
        """Return control variates of zero."""
        return {name: np.zeros_like(vector) for name, vector in weights.items()}

    def controls(self, state: Blocks) -> Blocks:
        """Return the server's control variates."""
        return state

    def apply(self, before: Standing, aggregate: Aggregate) -> Standing:
        """Step, then move the control variates by |S|/N times their mean change."""
        weights, state = dict(before.weights), dict(before.state)
        for name, mean in aggregate.mean.items():
            weights[name] = weights[name] + np.float32(self.server_learning_rate) * mean
        for name, change in aggregate.controls.items():
            state[name] = state[name] + np.float32(aggregate.participation[name]) * change
        return Standing(weights=weights, state=state)
