"""What the paper reports: facts to put measurements beside, nothing more.

"Privacy-Preserving Federated Cross-Modal Fusion for Scientific Imaging: Medical, Materials, and
Generic Domain Validation" (Janarthanam, Boddu, Vivekanadam). Its images are not public.
"""

from __future__ import annotations

from collections.abc import Mapping

DOMAINS = ("medical", "materials", "environmental")

TABLE_3: Mapping[str, tuple[float, float, float]] = {
    "centralized": (0.926, 0.935, 0.918),
    "isolated": (0.784, 0.812, 0.759),
    "federated": (0.841, 0.868, 0.823),
    "federated_dp": (0.921, 0.931, 0.911),
    "fedfuse": (0.867, 0.881, 0.852),
}
"""Accuracy by paradigm, in the order of `DOMAINS`; `federated_dp` at epsilon 8, ours at 1."""

OF_CENTRALIZED = 0.942
"""The headline: accuracy at epsilon 1 as a fraction of the centralized one."""

GAP_AT_2 = (0.03, 0.05)
"""At epsilon 2 accuracy is said to be so far below centralized."""

MEGABYTES = (1240.0, 410.0)
"""Sent in a round without and with compression."""

SAVING = 0.67
"""The same as a fraction, as the paper rounds it."""

TRANSFER_GAIN = 0.23
"""Accuracy gained by pre-training on other domains, against training from scratch."""
