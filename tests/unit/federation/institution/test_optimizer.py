"""The flat optimizer takes the steps that torch's own optimizers take."""

from __future__ import annotations

import pytest
import torch

from fedfuse_ray.config import TrainingConfig
from fedfuse_ray.federation.institution.optimizer import FlatOptimizer


def ours(config, start, gradients, rates):
    parameters, gradient = start.clone(), torch.zeros_like(start)
    optimizer = FlatOptimizer(config, parameters, gradient)
    for step, rate in zip(gradients, rates, strict=True):
        gradient.copy_(step)
        optimizer.learning_rate = rate
        optimizer.step()
    return parameters


def torchs(kind, options, start, gradients, rates):
    parameter = torch.nn.Parameter(start.clone())
    optimizer = kind([parameter], lr=1.0, **options)
    for step, rate in zip(gradients, rates, strict=True):
        parameter.grad = step.clone()
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    return parameter.detach()


CASES = {
    "adam": (torch.optim.Adam, {}, {"optimizer": "adam"}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.1}, {"optimizer": "adam", "weight_decay": 0.1}),
    "sgd": (torch.optim.SGD, {}, {"optimizer": "sgd", "momentum": 0.0}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9}, {"optimizer": "sgd", "momentum": 0.9}),
    "decay": (
        torch.optim.SGD,
        {"momentum": 0.9, "weight_decay": 0.1},
        {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.1},
    ),
    "decay alone": (
        torch.optim.SGD,
        {"weight_decay": 0.1},
        {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.1},
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("changing", [False, True])
def test_steps_equal_torchs(case, changing):
    kind, options, settings = CASES[case]
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(50, generator=generator)
    gradients = torch.randn(20, 50, generator=generator)
    gradients[3] = 0
    rates = [0.05 / (1 + i) if changing else 0.05 for i in range(20)]
    config = TrainingConfig(rounds=1, **settings)
    torch.testing.assert_close(
        ours(config, start, gradients, rates),
        torchs(kind, options, start, gradients, rates),
        rtol=1e-5,
        atol=1e-6,
    )


def test_it_starts_from_the_configs_learning_rate_and_leaves_the_gradient_alone():
    config = TrainingConfig(rounds=1, optimizer="sgd", momentum=0.9, learning_rate=0.5)
    parameters, gradient = torch.zeros(2), torch.tensor([1.0, -2.0])
    optimizer = FlatOptimizer(config, parameters, gradient)
    optimizer.step()
    torch.testing.assert_close(parameters, torch.tensor([-0.5, 1.0]))
    torch.testing.assert_close(gradient, torch.tensor([1.0, -2.0]))
