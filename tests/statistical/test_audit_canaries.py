"""The one-run audit passes the real path and catches planted faults: its negative controls.

Every fault is planted into the code that training runs, not into the audit.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedfuse_ray.audit.attacks.canaries import JOINT
from fedfuse_ray.audit.attacks.canary_audit import EVERY, audit_canaries
from fedfuse_ray.federation.institution import private_gradients
from fedfuse_ray.federation.modes import integers as secure_integers
from fedfuse_ray.federation.plan.terms import PrivacyTerms
from fedfuse_ray.federation.rounds.charging import Charging
from fedfuse_ray.models.initial import block_sizes
from fedfuse_ray.privacy.mechanisms.clipping import ClippedSum, clip_and_sum_torch
from tests.support.federations import plan_of, tiny


def audited(*settings, paradigm="fedfuse", seed=0, canaries=5000):
    """Return the audit of `tiny` against what its own ledger says."""
    plan = plan_of(tiny(*settings, paradigm=paradigm))
    rounds = plan.experiment.training.rounds
    charging = Charging.open(plan)
    for number in range(1, rounds + 1):
        charging.charge(number)
    sizes = block_sizes(plan.spec)
    return audit_canaries(
        plan, sizes, epsilon=charging.epsilon, rounds=rounds, canaries=canaries, seed=seed
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_real_path_passes_and_the_bound_is_not_vacuous(seed):
    audit = audited(seed=seed)
    assert audit.passed
    assert audit.epsilon == pytest.approx(1.0, rel=1e-3)
    assert 0.1 < audit.lower_bound < 0.8


@pytest.mark.parametrize(
    "settings",
    [
        ("privacy.mechanism=skellam",),
        ("privacy.sampling_rate=0.5",),
        ("privacy.noise_schedule=[0.5,1.0,2.0]",),
        ("privacy.groups={fusion: {clip_norm: 0.2}, rest: {clip_norm: 0.5, noise_scale: 1.0}}",),
        ("privacy.tolerated_dropouts=0",),
        ("privacy.target_epsilon=8.0",),
    ],
    ids=["skellam", "sampled", "schedule", "groups", "no colluders", "epsilon 8"],
)
def test_other_terms_pass(settings):
    assert audited(*settings).passed


def test_a_larger_budget_shows_in_the_bound():
    assert audited("privacy.target_epsilon=8.0").lower_bound > 2.0


def test_training_at_each_institution_passes_and_is_caught_without_its_noise(monkeypatch):
    settings = ("privacy.target_epsilon=2.0",)
    plain = audited(*settings, paradigm="federated_dp")
    assert plain.passed
    assert plain.lower_bound > 0.2
    real = private_gradients.gaussian_noise
    monkeypatch.setattr(
        private_gradients, "gaussian_noise", lambda size, std, g: real(size, std, g) / 10
    )
    assert not audited(*settings, paradigm="federated_dp").passed


def test_noise_divided_by_the_root_of_fifteen_is_caught(monkeypatch):
    right = PrivacyTerms.noise_stds

    def wrong(terms, sigma):
        return {name: std / math.sqrt(15) for name, std in right(terms, sigma).items()}

    def only_the_release(sums, institution, grid, seed, real=secure_integers.noisy_words):
        with monkeypatch.context() as patch:
            patch.setattr(PrivacyTerms, "noise_stds", wrong)
            return real(sums, institution, grid, seed)

    monkeypatch.setattr("fedfuse_ray.audit.attacks.releases.noisy_words", only_the_release)
    audit = audited()
    assert not audit.passed
    assert audit.tests[0].group == EVERY
    assert audit.tests[0].lower_bound > 1.2


@pytest.mark.parametrize("block", ["encoder/ct", "fusion", "head/medical"])
def test_noise_left_out_of_one_block_is_caught_and_named(monkeypatch, block):
    def silent(sums, institution, grid, seed, real=secure_integers.noisy_words):
        shares = PrivacyTerms.shares
        with monkeypatch.context() as patch:
            patch.setattr(
                PrivacyTerms, "shares", lambda t, b: 10**18 if b == block else shares(t, b)
            )
            return real(sums, institution, grid, seed)

    monkeypatch.setattr("fedfuse_ray.audit.attacks.releases.noisy_words", silent)
    audit = audited()
    assert not audit.passed
    assert audit.worst.group == block


def missing(block):
    """Return a clip that neither measures nor scales one block."""

    def clip(gradients, clip_norms, groups=None):
        others = {name: parts for name, parts in gradients.items() if name != block}
        clipped = clip_and_sum_torch(others, clip_norms, groups)
        bare = np.concatenate([p.flatten(1).sum(0).numpy() for p in gradients[block]])
        return ClippedSum({**clipped.sums, block: bare}, clipped.norms)

    return clip


def block_by_block(gradients, clip_norms, groups=None):
    """Clip every block to C, where all blocks together may have C."""
    sums, norms = {}, {}
    for name, parts in gradients.items():
        own = clip_and_sum_torch({name: parts}, clip_norms, groups)
        sums |= own.sums
        norms |= own.norms
    return ClippedSum(sums, norms)


def test_a_clip_that_misses_the_fusion_block_is_caught(monkeypatch):
    monkeypatch.setattr(private_gradients, "clip_and_sum_torch", missing("fusion"))
    audit = audited()
    assert not audit.passed
    assert audit.worst.group in ("fusion", JOINT, EVERY)


def test_a_clip_of_each_block_by_itself_is_seen_by_the_spread_canaries(monkeypatch):
    def correct(audit):
        guesses = next(test.guesses for test in audit.tests if test.group == JOINT)
        return guesses.correct / guesses.guessed

    right = correct(audited())
    monkeypatch.setattr(private_gradients, "clip_and_sum_torch", block_by_block)
    assert correct(audited()) > right + 0.05
