"""Scores on an institution's own test specimens, with noise before they leave it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fedfuse_ray.federation.institution.training import Prediction
from fedfuse_ray.federation.messages.metrics import View
from fedfuse_ray.federation.plan.score_terms import ScoreTerms
from fedfuse_ray.privacy.mechanisms.gaussian import gaussian_noise
from fedfuse_ray.privacy.randomness import Randomness, digest_of


def noised(
    counted: Mapping[View, Prediction], terms: ScoreTerms, draws: Randomness, name: str
) -> dict[View, Prediction]:
    """Return the counts of all views with noise, as integers; attention is left out.

    Cells may come out below zero. Without specimens there is nothing to hide, and no noise.

    Formal guarantees: see `plan.score_terms`. The noise's stream is named by the counts
    themselves, so the same model and records give the same release again, and no other shares it.

    Args:
        counted: Counts and attention of each view.
        terms: How much noise.
        draws: The run's randomness, given the weights that are scored.
        name: Of the institution.
    """
    noisy = {}
    message = digest_of({"+".join(view): p.confusion for view, p in counted.items()})
    for view, prediction in counted.items():
        counts = prediction.confusion
        if terms.held.get(name):
            stream = draws.stream("score noise", name, *view, message=message)
            noise = gaussian_noise(counts.size, terms.std(len(counted)), stream)
            counts = np.rint(counts + noise.reshape(counts.shape)).astype(np.int64)
        noisy[view] = Prediction(counts, np.zeros_like(prediction.attention))
    return noisy
