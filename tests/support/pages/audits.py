"""A plausible audit, made without an attack."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedfuse_ray.audit import Audit, CanaryAudit, Guesses, of_experiment
from fedfuse_ray.audit.attacks.canary.verdicts import CanaryTest
from fedfuse_ray.audit.attacks.features import FeatureLeak
from fedfuse_ray.audit.attacks.image_attack import ImageAttack, ImageLeak, Picture
from fedfuse_ray.audit.attacks.membership import Membership
from fedfuse_ray.audit.attacks.membership_attack import RELEASED
from tests.support.federations import tiny

VIEWS = ("raw", "secure sum")


def sample_audit(name="ct", preset="tiny"):
    """Return an audit of `tiny`; modality, block, institution and attack are called `name`."""
    generator = np.random.default_rng(0)
    subject = of_experiment(tiny(paradigm="fedfuse"), lambda stage: None)
    experiment = subject.plan.experiment.model_copy(update={"preset": preset})
    subject = replace(subject, plan=replace(subject.plan, experiment=experiment))
    shapes = ((1, 8, 8), (3, 8, 8), (1, 32))
    pictures = tuple(
        Picture(name, generator.random(shape), {v: generator.random(shape) for v in VIEWS})
        for shape in shapes
    )
    leaks = tuple(ImageLeak(view, 1, 12.0, 0.4, 0.75, 9, 4) for view in VIEWS)
    rates = tuple(np.linspace(0.0, 1.0, 20).tolist())
    test = CanaryTest(name, (Guesses(500, 100, 60),), 0.01, 1.0, 0.2)
    return Audit(
        subject,
        seed=3,
        quick=True,
        canaries=CanaryAudit(subject.epsilon, 1e-5, 3, "record", "f-DP", (test,)),
        images=ImageAttack(name, leaks, pictures),
        features=[FeatureLeak(view, 0.5, 0.5, 31, 16) for view in VIEWS],
        membership=[Membership(name, RELEASED, 0.55, 0.02, 120, 118, (rates, rates))],
        seconds={"canaries": 12.0},
    )
