"""A clipping norm that follows a quantile of the records' gradient norms, privately.

Andrew, Thakkar, McMahan and Ramaswamy (2021), "Differentially Private Learning with Adaptive
Clipping", arXiv 1905.03871, algorithm 1. Each record reports one bit, whether its norm is within C.
The bits are summed beside the gradients, with noise of their own, and C moves geometrically.

Formal guarantees: gradients with multiplier sigma_g (`gradient_noise_multiplier`) and the count
with standard deviation sigma_b are together one Gaussian mechanism with multiplier sigma: the bits
are centred at 1/2, so the count has sensitivity 1/2 and costs (2 sigma_b)^-2. The ledger charges
sigma, the same as without adaptation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fedfuse_ray.errors import InputError


def gradient_noise_multiplier(noise_multiplier: float, count_std: float) -> float:
    """Return sigma_g = (sigma^-2 - (2 sigma_b)^-2)^-1/2 (theorem 1).

    Args:
        noise_multiplier: sigma, the joint multiplier that is charged.
        count_std: sigma_b, the standard deviation of the noise on the count.

    Raises:
        InputError: The count alone would cost as much as sigma allows: sigma_b <= sigma / 2.
    """
    if not 2.0 * count_std > noise_multiplier > 0.0:
        raise InputError(
            "privacy.adaptive_clipping.count_noise",
            count_std,
            f"a noise multiplier of {noise_multiplier:g} needs count noise above half of it",
        )
    return 1.0 / math.sqrt(noise_multiplier**-2 - (2.0 * count_std) ** -2)


def centred_count(norms: npt.NDArray[np.float64], clip_norm: float) -> float:
    """Return the sum over records of [norm <= C] - 1/2; a dropped record counts as above C."""
    return float(np.count_nonzero(norms <= clip_norm)) - 0.5 * len(norms)


@dataclass(frozen=True, slots=True)
class AdaptiveClip:
    """The clipping norm, and how it moves.

    Args:
        clip_norm: C now.
        target_quantile: gamma, the fraction of records to leave unclipped.
        learning_rate: eta, the geometric step.
    """

    clip_norm: float
    target_quantile: float = 0.5
    learning_rate: float = 0.2

    def update(self, noisy_count: float, expected_records: float) -> AdaptiveClip:
        """Return the next norm, C exp(-eta (b - gamma)).

        Args:
            noisy_count: The centred count with its noise, summed over institutions.
            expected_records: What the count is divided by: public, as for the gradients.
        """
        fraction = noisy_count / expected_records + 0.5
        # Noise may carry the estimate far outside of [0, 1] when few records are expected.
        fraction = min(max(fraction, 0.0), 1.0)
        step = -self.learning_rate * (fraction - self.target_quantile)
        return replace(self, clip_norm=self.clip_norm * math.exp(step))
