"""Membership inference: from scores of members and others to what an attacker gains, and may gain.

Adversary: holds the released model and a suspect specimen with its label, and asks whether it was
trained on. Sources: loss threshold, Yeom et al., 2018, arXiv 1709.01604, section 3; LiRA, Carlini
et al., 2022, arXiv 2112.03570, offline form (Eq. 4) and true positives at low false positives; the
limit under differential privacy, Kairouz et al., 2015, arXiv 1311.0776, theorem 2.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fedfuse_ray.errors import InputError

Scores = npt.NDArray[np.float64]

FALSE_POSITIVES = 0.01
_FEWEST_SHADOWS = 2


@dataclass(frozen=True)
class Membership:
    """How well one attack tells members from others.

    Attributes:
        attack: Its name.
        target: Which model was attacked.
        auc: Area under the curve; 0.5 is guessing.
        tpr: True positive rate at 1% false positives; 0.01 is guessing.
        members: Specimens that were trained on.
        others: Specimens of the same institutions that were not.
        curve: False and true positive rates, for the picture.
    """

    attack: str
    target: str
    auc: float
    tpr: float
    members: int
    others: int
    curve: tuple[tuple[float, ...], tuple[float, ...]] = field(repr=False)


def assess(attack: str, target: str, members: Scores, others: Scores) -> Membership:
    """Assess an attack by its scores; higher means 'member'.

    Raises:
        InputError: No members, or nobody else.
    """
    if not (len(members) and len(others)):
        raise InputError(
            "data", f"{len(members)} members, {len(others)} others", "give both some specimens"
        )
    false, true = roc(members, others)
    area = float(np.sum(np.diff(false) * (true[1:] + true[:-1]) / 2.0))
    kept = np.unique(np.searchsorted(false, np.geomspace(1e-3, 1.0, 120)).clip(0, len(false) - 1))
    return Membership(
        attack=attack,
        target=target,
        auc=area,
        tpr=float(true[false <= FALSE_POSITIVES].max()),
        members=len(members),
        others=len(others),
        curve=(tuple(false[kept].tolist()), tuple(true[kept].tolist())),
    )


def roc(members: Scores, others: Scores) -> tuple[Scores, Scores]:
    """Return false and true positive rates over all thresholds, from 0 to 1."""
    thresholds = np.unique(np.concatenate([members, others]))[::-1]
    true = np.searchsorted(np.sort(-members), -thresholds, side="right") / len(members)
    false = np.searchsorted(np.sort(-others), -thresholds, side="right") / len(others)
    zero = np.zeros(1)
    return np.concatenate([zero, false]), np.concatenate([zero, true])


def dp_bound(false: Scores, epsilon: float, delta: float) -> Scores:
    """Return the highest true positive rate at given false positive rates under DP.

    min(e^epsilon FPR + delta, 1 - e^-epsilon (1 - delta - FPR)), at most 1.
    """
    grown = math.exp(min(epsilon, 700.0)) * false + delta
    shrunk = 1.0 - math.exp(-epsilon) * (1.0 - delta - false)
    return np.minimum(np.minimum(grown, shrunk), 1.0)


def lira(target: Scores, shadows: Scores, trained_on: npt.NDArray[np.bool_]) -> Scores:
    """Return offline LiRA's score of each specimen.

    How far the target's confidence lies above what models that never saw the specimen give it, in
    standard deviations. With few shadows the deviation is pooled over specimens.

    Args:
        target: The target's logit-scaled confidences, [N].
        shadows: The shadows' [S, N].
        trained_on: Which specimens each shadow saw, bool [S, N].

    Returns:
        Scores [N]; 0 for a specimen that fewer than two shadows did not see.
    """
    unseen = ~trained_on
    count = unseen.sum(axis=0)
    enough = count >= _FEWEST_SHADOWS
    mean = np.where(unseen, shadows, 0.0).sum(axis=0) / np.maximum(count, 1)
    squares = np.where(unseen, (shadows - mean) ** 2, 0.0)[:, enough].sum()
    freedom = max(1.0, float((count[enough] - 1).sum()))
    deviation = math.sqrt(squares / freedom) + 1e-12
    return np.where(enough, (target - mean) / deviation, 0.0)
