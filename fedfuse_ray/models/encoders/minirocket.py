"""MiniRocket for one-dimensional signals: a fixed bank of convolutions, and how often each fires.

Dempster et al., 2021, arXiv 2012.08791: 84 kernels of length 9 with weights -1 and 2, exponential
dilations, and the proportion of positive values (PPV) after a bias. There the biases are quantiles
of the training signals; here they are quantiles of public noise, so that nothing is fitted on
anybody's data: Gaussian noise of a spectral exponent between 0 (white) and 4, which covers rough
and smooth signals. Signals and noise are standardised, each within itself. PPV is taken over the
whole signal and over each of a few segments, since the position of a line of a spectrum counts.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fedfuse_ray import rng
from fedfuse_ray.config.settings.model import EncoderConfig

_LENGTH, _TAPS = 9, 3
_SEGMENTS = (1, 16)
_BIASES = 1
_MOST_DILATIONS = 8
_SMOOTHEST = 4.0
_SEED = 20_210_814
_GOLDEN = (5**0.5 - 1) / 2


class MiniRocket(nn.Module):
    """The bank, for signals [C, L]: nothing in it is trained, or depends on anybody's data."""

    kernels: torch.Tensor
    biases: torch.Tensor

    def __init__(self, channels: int, length: int) -> None:
        super().__init__()
        kernels = [_kernel(taps) for taps in combinations(range(_LENGTH), _TAPS)]
        self.register_buffer("kernels", torch.tensor(np.stack(kernels))[:, None])
        self.dilations = _dilations(length)
        self.register_buffer("biases", _biases(self.kernels, self.dilations, length))
        self.features = channels * len(self.dilations) * len(kernels) * _BIASES * sum(_SEGMENTS)

    @property
    def preprocessing(self) -> tuple[object, ...]:
        """What decides the features beside the kernels and biases."""
        return self.dilations, _SEGMENTS

    def forward(self, signals: torch.Tensor) -> torch.Tensor:
        """Map [B, C, L] to proportions [B, features] in [0, 1]."""
        batch, channels, length = signals.shape
        each = _standardised(signals).reshape(batch * channels, 1, length)
        found = []
        for dilation, biases in zip(self.dilations, self.biases, strict=True):
            response = _convolve(each, self.kernels, dilation)
            for level in biases.unbind(1):
                fires = (response > level[:, None]).to(signals.dtype)
                found += [nn.functional.adaptive_avg_pool1d(fires, n) for n in _SEGMENTS]
        return torch.cat(found, dim=2).reshape(batch, self.features)


def fixed_bank(config: EncoderConfig, shape: tuple[int, ...]) -> MiniRocket:
    """Return the bank for signals [C, L]; it is the same for every seed."""
    return MiniRocket(shape[0], shape[1])


def _kernel(taps: tuple[int, ...]) -> npt.NDArray[np.float32]:
    weights = np.full(_LENGTH, -1.0, np.float32)
    weights[list(taps)] = 2.0
    return weights


def _dilations(length: int) -> tuple[int, ...]:
    """Return at most `_MOST_DILATIONS` powers of two, with which a kernel fits into a signal."""
    most = max(1, (length - 1) // (_LENGTH - 1))
    return tuple(2**k for k in range(min(most.bit_length(), _MOST_DILATIONS)))


def _biases(kernels: torch.Tensor, dilations: tuple[int, ...], length: int) -> torch.Tensor:
    """Return quantiles of the responses to public noise, [dilations, kernels, biases]."""
    generator = rng.generator(_SEED, "minirocket")
    count = len(kernels) * _BIASES
    levels = (np.arange(1, count + 1) * _GOLDEN % 1.0).reshape(len(kernels), _BIASES)
    rows = []
    for dilation in dilations:
        exponents = generator.uniform(0.0, _SMOOTHEST, len(kernels))
        noise = torch.from_numpy(_noise(exponents, length, generator))[:, None]
        response = _convolve(_standardised(noise), kernels, dilation)
        own = response[torch.arange(len(kernels)), torch.arange(len(kernels))].double().numpy()
        each = [np.quantile(row, level) for row, level in zip(own, levels, strict=True)]
        rows.append(np.stack(each))
    return torch.from_numpy(np.stack(rows).astype(np.float32))


def _noise(
    exponents: npt.NDArray[np.float64], length: int, generator: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Return Gaussian noise [N, length] whose power falls with the frequency's given power."""
    spectrum = np.fft.rfft(generator.standard_normal((len(exponents), 2 * length)))
    frequencies = np.arange(spectrum.shape[1], dtype=np.float64)
    frequencies[0] = np.inf
    shaped = spectrum * frequencies ** (-exponents[:, None] / 2)
    return np.fft.irfft(shaped)[:, :length].astype(np.float32)


def _standardised(signals: torch.Tensor) -> torch.Tensor:
    """Take the mean of each signal [B, C, L] out, and its standard deviation."""
    centred = signals - signals.mean(dim=2, keepdim=True)
    return centred / (centred.square().mean(dim=2, keepdim=True).sqrt() + 1e-6)


def _convolve(signals: torch.Tensor, kernels: torch.Tensor, dilation: int) -> torch.Tensor:
    """Convolve [B, 1, L] with every kernel: [B, kernels, L], zeros beyond the ends."""
    padding = dilation * (_LENGTH // 2)
    return nn.functional.conv1d(signals, kernels, padding=padding, dilation=dilation)
