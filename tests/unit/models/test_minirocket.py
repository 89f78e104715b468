"""The bank of convolutions for signals: fixed, blind to data, and of use."""

from __future__ import annotations

import numpy as np
import torch

from fedfuse_ray.config.settings.model import EncoderConfig
from fedfuse_ray.models.encoders.minirocket import MiniRocket, fixed_bank


def lines(positions, length=256, seed=0):
    """Return a spectrum of sharp lines on a sloping background, with noise, [1, 1, length]."""
    generator = np.random.default_rng(seed)
    x = np.linspace(0, 1, length)
    y = sum(np.exp(-0.5 * ((x - p) / 0.01) ** 2) for p in positions)
    y = y + 0.5 * x + generator.normal(0, 0.03, length)
    return torch.tensor(y, dtype=torch.float32)[None, None]


def test_the_bank_is_the_same_wherever_it_is_built():
    torch.manual_seed(1)
    first = fixed_bank(EncoderConfig(kind="minirocket", trainable=False), (1, 200))
    torch.manual_seed(2)
    other = MiniRocket(1, 200)
    assert torch.equal(first.biases, other.biases)
    assert torch.equal(first(lines([0.5], 200)), other(lines([0.5], 200)))
    assert not list(first.parameters())


def test_features_are_proportions_and_scale_does_not_matter():
    bank, signal = MiniRocket(2, 128), torch.rand(3, 2, 128)
    features = bank(signal)
    assert features.shape == (3, bank.features)
    assert features.min() >= 0
    assert features.max() <= 1
    other = bank(7 * signal - 3)  # but for a response that rounding moves over its bias
    assert (other - features).abs().mean() < 1e-4


def test_kernels_are_the_eighty_four_and_see_no_offset():
    bank = MiniRocket(1, 64)
    assert len({tuple(k.tolist()) for k in bank.kernels[:, 0]}) == 84
    assert not bank.kernels.sum(dim=2).any()


def test_biases_are_within_what_noise_and_real_signals_reach():
    bank = MiniRocket(1, 256)
    features = torch.cat([bank(lines([0.2, 0.7], seed=s)) for s in range(8)])
    inside = ((features > 0) & (features < 1)).float().mean()
    assert inside > 0.5


def test_a_linear_reader_tells_spectra_apart_by_their_lines():
    bank, found = MiniRocket(1, 256), []
    classes = ([0.2, 0.5], [0.25, 0.5], [0.2, 0.55])
    for seed in range(12):
        found.append([bank(lines(each, seed=100 * i + seed)) for i, each in enumerate(classes)])
    means = [torch.cat([row[i] for row in found[:6]]).mean(dim=0) for i in range(3)]
    guesses = [
        [min(range(3), key=lambda k: float((row[i] - means[k]).square().sum())) for i in range(3)]
        for row in found[6:]
    ]
    assert guesses == [[0, 1, 2]] * 6


def test_short_signals_have_fewer_dilations():
    assert MiniRocket(1, 64).dilations == (1, 2, 4)
    assert len(MiniRocket(1, 1024).dilations) == 7
