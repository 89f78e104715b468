"""How many runs a search makes: a fixed number, or one drawn so that choosing the best is cheap.

The truncated negative binomial distributions of Papernot and Steinke (2022, arXiv 2110.03620,
definition 1): eta = 1 is the geometric one, eta = 0 the logarithmic one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np

Number = Literal["fixed", "geometric", "logarithmic"]

ETA: Mapping[str, float] = {"geometric": 1.0, "logarithmic": 0.0}


def log_inverse_gamma(mean: float, eta: float) -> float:
    """Return log(1/gamma) of the distribution with mean E K above 1; eta is 1 or 0.

    Geometric: E K = 1/gamma. Logarithmic: E K = (1/gamma - 1) / log(1/gamma).
    """
    if eta == 1.0:
        return math.log(mean)
    low, high = 0.0, 2.0 * math.log(mean) + 4.0
    while high - low > 1e-12 * high:
        middle = (low + high) / 2.0
        low, high = (middle, high) if math.expm1(middle) < mean * middle else (low, middle)
    return high


def draw_number(number: Number, mean: int, stream: np.random.Generator) -> int:
    """Return how many runs to make: `mean`, or a draw from a distribution with that mean."""
    if number == "fixed" or mean == 1:
        return mean
    if number == "geometric":
        return int(stream.geometric(1.0 / mean))
    return int(stream.logseries(-math.expm1(-log_inverse_gamma(mean, ETA[number]))))
