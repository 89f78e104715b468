"""FedAvg, FedProx and FedNova: step along the averaged update.

- FedAvg: McMahan et al., 2017, arXiv 1602.05629, Algorithm 1; with server momentum it is FedAvgM
  (Hsu et al., 2019, arXiv 1909.06335).
- FedProx: Li et al., 2020, arXiv 1812.06127, Eq. 2; the proximal term acts at the institutions.
- FedNova: Wang et al., 2020, arXiv 2007.07481, Eq. 8: updates are divided by their local steps
  before averaging, and the mean is multiplied by the effective number of steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedfuse_ray.blocks import Blocks
from fedfuse_ray.federation.strategies.base import Aggregate, LocalRule, Standing


@dataclass(frozen=True)
class Averaging:
    """Add the mean update, scaled, with optional heavy-ball momentum at the server."""

    local: LocalRule
    server_learning_rate: float
    server_momentum: float = 0.0

    def init(self, weights: Blocks) -> Blocks:
        """Return zero momentum, or nothing without momentum."""
        if not self.server_momentum:
            return {}
        return {name: np.zeros_like(vector) for name, vector in weights.items()}

    def controls(self, state: Blocks) -> Blocks:
        """Institutions need nothing but the weights."""
        return {}

    def apply(self, before: Standing, aggregate: Aggregate) -> Standing:
        """Step along the mean update."""
        weights, state = dict(before.weights), dict(before.state)
        for name, mean in aggregate.mean.items():
            step = mean
            if self.local.normalise:
                step = np.float32(aggregate.steps[name]) * step
            if self.server_momentum:
                step = np.float32(self.server_momentum) * state[name] + step
                state[name] = step
            weights[name] = weights[name] + np.float32(self.server_learning_rate) * step
        return Standing(weights=weights, state=state)
