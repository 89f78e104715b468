"""Hockey-stick divergences, of laws on integers and of the Gaussian mechanism."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtr


def hockey_stick(one, other, epsilon):
    return float(np.maximum(one - math.exp(epsilon) * other, 0.0).sum())


def gaussian_hockey_stick(multiplier, epsilon):
    """Return that of a Gaussian: Balle and Wang, 2018, arXiv 1805.06530, theorem 8."""
    a, b = 0.5 / multiplier, epsilon * multiplier
    return float(ndtr(a - b) - math.exp(epsilon) * ndtr(-a - b))
