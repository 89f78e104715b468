"""The audit: choose attacks, and run them on a subject."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fedfuse_ray.audit.attacks.canary.verdicts import CanaryAudit
from fedfuse_ray.audit.attacks.canary_audit import audit_canaries
from fedfuse_ray.audit.attacks.features import FeatureLeak, feature_leaks
from fedfuse_ray.audit.attacks.image_attack import ImageAttack, attack_images, victim
from fedfuse_ray.audit.attacks.membership_attack import attack_membership
from fedfuse_ray.audit.attacks.observations import Bench, trainable
from fedfuse_ray.audit.findings import Audit
from fedfuse_ray.audit.subject import Subject, Tell
from fedfuse_ray.blocks import Blocks
from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.institution.institution import pin_threads
from fedfuse_ray.models.initial import block_sizes, initial_blocks

ATTACKS = ("inversion", "membership", "canaries")


@dataclass(frozen=True)
class Effort:
    """How much work goes into the attacks.

    Attributes:
        canaries: m of the canary audit, over all of its runs.
        records: Records whose images are attacked.
        steps: Steps of the search for one record's images.
        batch_steps: The same for a batch.
        feature_records: Records whose features are attacked.
        company: Records that each institution adds to the secure sum.
        shadows: Shadow models a domain.
        epochs: Epochs of a shadow.
    """

    canaries: int = 160_000
    records: int = 2
    steps: int = 800
    batch_steps: int = 200
    feature_records: int = 64
    company: int = 16
    shadows: int = 16
    epochs: int = 20


QUICK = Effort(
    canaries=40_000,
    records=1,
    steps=200,
    batch_steps=40,
    feature_records=16,
    company=4,
    shadows=4,
    epochs=10,
)


def audit(
    subject: Subject,
    attacks: tuple[str, ...] = ATTACKS,
    *,
    seed: int = 0,
    quick: bool = False,
    tell: Tell = lambda text: None,
) -> Audit:
    """Run attacks on a subject from `of_experiment` or `of_run`.

    Without privacy there is nothing for canaries to test. `quick` takes seconds, not minutes;
    `tell` is called with each stage.

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
        subject.dataset.index,
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
