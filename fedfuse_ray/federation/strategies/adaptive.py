"""FedAdam and FedYogi: an adaptive optimizer at the server, the mean update as its gradient.

Reddi et al., 2021, Adaptive Federated Optimization, arXiv 2003.00295, Algorithm 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedfuse_ray.blocks import Blocks, Vector
from fedfuse_ray.federation.strategies.base import PLAIN, Aggregate, LocalRule, Standing

_FIRST, _SECOND = "first/", "second/"


@dataclass(frozen=True)
class Adaptive:
    """Per-coordinate steps from running moments of the mean update."""

    kind: Literal["fedadam", "fedyogi"]
    server_learning_rate: float
    beta1: float
    beta2: float
    adaptivity: float
    local: LocalRule = PLAIN

    def init(self, weights: Blocks) -> Blocks:
        """Return first moments of zero and second moments of adaptivity squared (Alg. 2)."""
        state = {_FIRST + name: np.zeros_like(vector) for name, vector in weights.items()}
        floor = np.float32(self.adaptivity**2)
        return state | {_SECOND + name: np.full_like(v, floor) for name, v in weights.items()}

    def controls(self, state: Blocks) -> Blocks:
        """Institutions need nothing but the weights."""
        return {}

    def apply(self, before: Standing, aggregate: Aggregate) -> Standing:
        """Update the moments, then step."""
        weights, state = dict(before.weights), dict(before.state)
        for name, mean in aggregate.mean.items():
            beta1 = np.float32(self.beta1)
            first = (beta1 * state[_FIRST + name] + (1 - beta1) * mean).astype(np.float32)
            second = self._second(state[_SECOND + name], mean * mean)
            scale = np.float32(self.server_learning_rate)
            root = np.sqrt(second) + np.float32(self.adaptivity)
            weights[name] = (weights[name] + scale * first / root).astype(np.float32)
            state[_FIRST + name], state[_SECOND + name] = first, second
        return Standing(weights=weights, state=state)

    def _second(self, second: Vector, square: Vector) -> Vector:
        keep = np.float32(self.beta2)
        if self.kind == "fedyogi":
            return second - (np.float32(1) - keep) * square * np.sign(second - square)
        return keep * second + (np.float32(1) - keep) * square
