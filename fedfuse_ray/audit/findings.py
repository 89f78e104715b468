"""What an audit found, and all of its numbers as a plain tree."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from fedfuse_ray.audit.attacks.canary.verdicts import CanaryAudit
from fedfuse_ray.audit.attacks.features import FeatureLeak
from fedfuse_ray.audit.attacks.image_attack import ImageAttack
from fedfuse_ray.audit.attacks.membership import FALSE_POSITIVES, Membership, dp_bound
from fedfuse_ray.audit.attacks.membership_attack import RELEASED
from fedfuse_ray.audit.attacks.observations import SUM
from fedfuse_ray.audit.implied import from_membership, from_reconstruction
from fedfuse_ray.audit.subject import Subject


@dataclass
class Audit:
    """What an audit found; an attack that was not run is None or empty. Seconds are wall time."""

    subject: Subject
    seed: int
    quick: bool
    canaries: CanaryAudit | None = None
    images: ImageAttack | None = None
    features: list[FeatureLeak] = field(default_factory=list)
    membership: list[Membership] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether nothing contradicts the ledger."""
        return self.canaries is None or self.canaries.passed

    @property
    def membership_limit(self) -> float | None:
        """The highest true positive rate at 1% false positives under the ledger's epsilon."""
        epsilon = self.subject.epsilon
        if epsilon is None:
            return None
        delta = self.subject.plan.experiment.privacy.delta
        return float(dp_bound(np.array([FALSE_POSITIVES]), epsilon, delta)[0])

    @property
    def lower_bounds(self) -> dict[str, float]:
        """What epsilon is at least, by each attack on what the threat model allows to see."""
        if self.subject.epsilon is None:
            return {}
        delta, bounds = self.subject.plan.experiment.privacy.delta, {}
        if self.canaries is not None:
            bounds["canaries"] = self.canaries.lower_bound
        if released := [m for m in self.membership if m.target == RELEASED]:
            bounds["membership"] = from_membership(released, delta)
        if summed := [leak for leak in self.features if leak.view == SUM]:
            bounds["reconstruction"] = from_reconstruction(summed, delta)
        return bounds

    def to_json(self) -> dict[str, Any]:
        """Return all numbers as a plain tree, without the pictures."""
        plan = self.subject.plan
        privacy = plan.experiment.privacy
        canaries = images = None
        if (c := self.canaries) is not None:
            verdict = {"lower_bound": c.lower_bound, "worst": c.worst.group, "passed": c.passed}
            canaries = asdict(c) | verdict
        if (i := self.images) is not None:
            leaks = [asdict(leak) for leak in i.leaks]
            images = {"institution": i.institution, "leaks": leaks}
        return {
            "preset": plan.experiment.preset,
            "paradigm": plan.experiment.paradigm,
            "mode": privacy.mode,
            "unit": privacy.protected_unit,
            "epsilon": self.subject.epsilon,
            "delta": privacy.delta if privacy.enabled else None,
            "rounds": self.subject.rounds,
            "seed": self.seed,
            "quick": self.quick,
            "passed": self.passed,
            "canaries": canaries,
            "inversion": {"images": images, "features": [asdict(leak) for leak in self.features]},
            "membership": [asdict(m) for m in self.membership],
            "membership_limit": self.membership_limit,
            "lower_bounds": self.lower_bounds,
            "seconds": self.seconds,
        }
