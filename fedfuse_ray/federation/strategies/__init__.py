"""Strategies: a rule in local training, and a step from mean updates to new weights.

A strategy sees its own state only: no plan, no message, nothing else that the server keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedfuse_ray.federation.strategies.adaptive import Adaptive
from fedfuse_ray.federation.strategies.averaging import Averaging
from fedfuse_ray.federation.strategies.base import Aggregate, LocalRule, Standing, Strategy
from fedfuse_ray.federation.strategies.scaffold import Scaffold

STRATEGIES: dict[str, Callable[[Any], Strategy]] = {
    "fedavg": lambda c: Averaging(LocalRule(), c.server_learning_rate, c.server_momentum),
    "fedprox": lambda c: Averaging(LocalRule(proximal_mu=c.proximal_mu), c.server_learning_rate),
    "fednova": lambda c: Averaging(LocalRule(normalise=True), c.server_learning_rate),
    "scaffold": lambda c: Scaffold(c.server_learning_rate),
    "fedadam": lambda c: Adaptive(
        "fedadam", c.server_learning_rate, c.beta1, c.beta2, c.adaptivity
    ),
    "fedyogi": lambda c: Adaptive(
        "fedyogi", c.server_learning_rate, c.beta1, c.beta2, c.adaptivity
    ),
}

__all__ = ["STRATEGIES", "Aggregate", "LocalRule", "Standing", "Strategy"]
