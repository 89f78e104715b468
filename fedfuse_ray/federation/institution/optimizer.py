"""SGD and Adam on one flat vector: the arithmetic of torch's, without its cost per tensor."""

from __future__ import annotations

import torch

from fedfuse_ray.config import TrainingConfig

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


class FlatOptimizer:
    """Steps a flat parameter vector along a flat gradient, in place.

    Adam: Kingma and Ba, 2015, arXiv 1412.6980, Algorithm 1, with decoupled weight decay
    (Loshchilov and Hutter, 2019, arXiv 1711.05101). SGD: heavy-ball momentum, L2 weight decay.

    Args:
        config: Names the optimizer and its constants.
        parameters: The vector to step, [P].
        gradient: Where each step finds its gradient, [P].
    """

    def __init__(
        self, config: TrainingConfig, parameters: torch.Tensor, gradient: torch.Tensor
    ) -> None:
        self.learning_rate = config.learning_rate
        self._config = config
        self._parameters, self._gradient = parameters, gradient
        self._first = torch.zeros_like(parameters)
        self._second = torch.zeros_like(parameters) if config.optimizer == "adam" else None
        self._steps = 0

    @torch.no_grad()
    def step(self) -> None:
        """Take one step."""
        self._steps += 1
        if self._second is not None:
            self._adam(self._second)
        else:
            self._sgd()

    def _adam(self, second: torch.Tensor) -> None:
        gradient, rate = self._gradient, self.learning_rate
        if self._config.weight_decay:
            self._parameters.mul_(1 - rate * self._config.weight_decay)
        self._first.lerp_(gradient, 1 - _BETA1)
        second.mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
        scale = (1 - _BETA2**self._steps) ** 0.5
        denominator = second.sqrt().div_(scale).add_(_EPSILON)
        self._parameters.addcdiv_(self._first, denominator, value=-rate / (1 - _BETA1**self._steps))

    def _sgd(self) -> None:
        direction = self._gradient
        if self._config.weight_decay:
            direction = direction + self._config.weight_decay * self._parameters
        if self._config.momentum:
            self._first.mul_(self._config.momentum).add_(direction)
            direction = self._first
        self._parameters.add_(direction, alpha=-self.learning_rate)
