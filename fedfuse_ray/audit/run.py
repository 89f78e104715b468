"""The audit: choose attacks, run them on a subject, write `audit.json` and `audit.html`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedfuse_ray.audit.attacks.canary_audit import CanaryAudit, audit_canaries
from fedfuse_ray.audit.attacks.features import FeatureLeak, feature_leaks
from fedfuse_ray.audit.attacks.image_attack import ImageAttack, attack_images, victim
from fedfuse_ray.audit.attacks.membership import FALSE_POSITIVES, Membership, dp_bound
from fedfuse_ray.audit.attacks.membership_attack import RELEASED, attack_membership
from fedfuse_ray.audit.attacks.observations import SUM, Bench, trainable
from fedfuse_ray.audit.implied import from_membership, from_reconstruction
from fedfuse_ray.audit.subject import Subject, Tell
from fedfuse_ray.blocks import Blocks
from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.institution.institution import pin_threads
from fedfuse_ray.files import write_json
from fedfuse_ray.models.initial import block_sizes, initial_blocks

ATTACKS = ("inversion", "membership", "canaries")


@dataclass(frozen=True)
class Effort:
    """How much work goes into the attacks.

    Attributes:
        canaries: m of the one-run audit, at most.
        records: Records whose images are attacked.
        steps: Steps of the search for one record's images.
        batch_steps: The same for a batch.
        feature_records: Records whose features are attacked.
        company: Records that each institution adds to the secure sum.
        shadows: Shadow models a domain.
        epochs: Epochs of a shadow.
    """

    canaries: int = 5000
    records: int = 2
    steps: int = 800
    batch_steps: int = 200
    feature_records: int = 64
    company: int = 16
    shadows: int = 16
    epochs: int = 20


QUICK = Effort(
    records=1, steps=200, batch_steps=40, feature_records=16, company=4, shadows=4, epochs=10
)


@dataclass
class Audit:
    """What an audit found; an attack that was not run is None or empty.

    Attributes:
        subject: What was audited.
        seed: Root of the audit's random streams.
        quick: Whether the effort was reduced.
        canaries: The one-run audit.
        images: Gradient inversion of images.
        features: Gradient inversion of features.
        membership: Membership inference.
        seconds: Wall time by attack.
    """

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
        canaries = None
        if self.canaries is not None:
            canaries = asdict(self.canaries) | {
                "lower_bound": self.canaries.lower_bound,
                "worst": self.canaries.worst.group,
                "passed": self.canaries.passed,
            }
        images = None
        if self.images is not None:
            images = {
                "institution": self.images.institution,
                "leaks": [asdict(leak) for leak in self.images.leaks],
            }
        return {
            "preset": plan.experiment.preset,
            "paradigm": plan.experiment.paradigm,
            "mode": privacy.mode,
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


def audit(
    subject: Subject,
    attacks: tuple[str, ...] = ATTACKS,
    *,
    seed: int = 0,
    quick: bool = False,
    tell: Tell = lambda text: None,
) -> Audit:
    """Run attacks on a subject.

    Args:
        subject: From `of_experiment` or `of_run`.
        attacks: Some of `ATTACKS`. Without privacy there is nothing for canaries to test.
        seed: Root of the audit's random streams.
        quick: Less effort: seconds, not minutes.
        tell: Called with each stage.

    Raises:
        InputError: An attack that does not exist, or that the model does not allow.
    """
    for name in attacks:
        if name not in ATTACKS:
            raise InputError("--attacks", name, f"choose among {', '.join(ATTACKS)}")
    pin_threads()
    effort = QUICK if quick else Effort()
    found = Audit(subject, seed, quick)
    weights: Blocks = {}
    if "membership" in attacks or ("inversion" in attacks and subject.folder is not None):
        weights = _timed(found, "training", lambda: subject.weights(tell))
    if "canaries" in attacks and subject.epsilon is not None:
        tell("Releasing canaries through the run's own noise")
        found.canaries = _timed(found, "canaries", lambda: _canaries(subject, effort, seed))
    if "membership" in attacks:
        tell("Asking who was trained on")
        found.membership = _timed(
            found,
            "membership",
            lambda: attack_membership(subject, weights, effort.shadows, effort.epochs, seed),
        )
    if "inversion" in attacks:
        tell("Inverting gradients")
        found.features = _timed(
            found, "features", lambda: _features(subject, weights, effort, seed)
        )
        found.images = _timed(found, "images", lambda: _images(subject, effort, seed))
    return found


def write_audit(found: Audit, folder: Path) -> Path:
    """Write `audit.json` and `audit.html`; returns the page's path."""
    from fedfuse_ray.audit.page import audit_page
    from fedfuse_ray.files import write_text

    write_json(folder / "audit.json", found.to_json())
    write_text(folder / "audit.html", audit_page(found))
    return folder / "audit.html"


def _timed(found: Audit, name: str, work: Callable[[], Any]) -> Any:
    began = time.perf_counter()
    result = work()
    found.seconds[name] = time.perf_counter() - began
    return result


def _canaries(subject: Subject, effort: Effort, seed: int) -> CanaryAudit:
    coding, sizes = subject.plan.coding, block_sizes(subject.plan.spec)
    if coding.secure:
        # Canaries are what is clipped: sketches of gradients where there are some.
        sizes = {name: coding.coordinates(name, size) for name, size in sizes.items()}
    return audit_canaries(
        subject.plan,
        sizes,
        epsilon=float(subject.epsilon or 0.0),
        rounds=subject.rounds,
        canaries=effort.canaries,
        seed=seed,
    )


def _features(subject: Subject, weights: Blocks, effort: Effort, seed: int) -> list[FeatureLeak]:
    blocks = weights or initial_blocks(subject.plan.spec)
    bench = Bench(subject.plan, subject.dataset, blocks, seed, effort.company)
    return feature_leaks(bench, victim(subject.plan), effort.feature_records)


def _images(subject: Subject, effort: Effort, seed: int) -> ImageAttack:
    plan = trainable(subject.plan)
    bench = Bench(plan, subject.dataset, initial_blocks(plan.spec), seed, effort.company)
    return attack_images(bench, effort.records, effort.steps, effort.batch_steps)
