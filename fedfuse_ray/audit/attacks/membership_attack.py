"""Membership inference on a federation: its released model beside heads that nothing protects.

Members are the institutions' training specimens, others their validation specimens: the same
scanners, so that only training tells them apart. The attacks are those of `membership`, over all
domains together.
"""

from __future__ import annotations

import numpy as np

from fedfuse_ray.audit.attacks.membership import Membership, assess, lira
from fedfuse_ray.audit.attacks.shadows import Pool, confidences, halves, pools
from fedfuse_ray.audit.subject import Subject
from fedfuse_ray.blocks import Blocks

RELEASED, UNPROTECTED = "released model", "unprotected heads"


def attack_membership(
    subject: Subject, weights: Blocks, shadows: int, epochs: int, seed: int
) -> list[Membership]:
    """Attack the released model, and the same heads trained without protection.

    `shadows` models a domain are trained for `epochs`, as are the unprotected heads.
    """
    scores: dict[tuple[str, str], list[tuple[np.ndarray, np.ndarray]]] = {}
    for pool in pools(subject.plan, subject.dataset, weights):
        for key, values in _domain_scores(pool, shadows, epochs, seed).items():
            pair = values[: pool.members], values[pool.members :]
            scores.setdefault(key, []).append(pair)
    found = []
    for (attack, target), pairs in scores.items():
        members = np.concatenate([inside for inside, _ in pairs])
        others = np.concatenate([outside for _, outside in pairs])
        found.append(assess(attack, target, members, others))
    return found


def _domain_scores(
    pool: Pool, count: int, epochs: int, seed: int
) -> dict[tuple[str, str], np.ndarray]:
    """Return each attack's scores on a domain's specimens."""
    chosen = halves(pool, count, seed)
    shadows = np.stack(
        [
            confidences(pool.train(rows, epochs, seed + 1 + number), pool.data)
            for number, rows in enumerate(chosen)
        ]
    )
    trained_on = np.arange(len(pool.data)) < pool.members
    targets = {
        RELEASED: confidences(pool.net(pool.target), pool.data),
        UNPROTECTED: confidences(pool.train(trained_on, epochs, seed), pool.data),
    }
    scores = {}
    for name, values in targets.items():
        # log p is monotone in log p / (1 - p), so one threshold serves both.
        scores["loss threshold", name] = values
        scores["LiRA", name] = lira(values, shadows, chosen)
    return scores
