"""The canary audit passes the real path and catches planted faults: its negative controls.

Every fault is planted into the code that training runs, not into the audit.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from fedfuse_ray.audit.attacks.canaries import JOINT
from fedfuse_ray.audit.attacks.canary.verdicts import EVERY, SIGNIFICANCE, TWO_RUNS
from fedfuse_ray.audit.attacks.canary_audit import audit_canaries
from fedfuse_ray.federation.institution import private_gradients
from fedfuse_ray.federation.messages import transforms
from fedfuse_ray.federation.modes import integers as secure_integers
from fedfuse_ray.federation.plan.terms import PrivacyTerms
from fedfuse_ray.federation.rounds.charging import Charging
from fedfuse_ray.federation.server import summing
from fedfuse_ray.models.initial import block_sizes
from fedfuse_ray.privacy.mechanisms.clipping import ClippedSum, clip_and_sum_torch
from tests.support.federations import dataset_of, plan_of, tiny
from tests.support.privacy.two_runs import named_by_use_alone


def audited(*settings, paradigm="fedfuse", seed=0, canaries=30_000):
    """Return the audit of `tiny` against what its own ledger says."""
    experiment = tiny(*settings, paradigm=paradigm)
    plan, index = plan_of(experiment), dataset_of(experiment).index
    rounds = plan.experiment.training.rounds
    charging = Charging.open(plan)
    for number in range(1, rounds + 1):
        charging.charge(number)
    sizes, claim = block_sizes(plan.spec), charging.epsilon
    return audit_canaries(
        plan, sizes, index, epsilon=claim, rounds=rounds, canaries=canaries, seed=seed
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_the_real_path_passes_and_the_bound_is_not_vacuous(seed):
    audit = audited(seed=seed)
    assert audit.passed
    assert audit.epsilon == pytest.approx(1.0, rel=1e-3)
    assert audit.bound == "f-DP"
    assert 0.4 < audit.lower_bound < 1.0
    assert sum(test.significance for test in audit.tests) <= SIGNIFICANCE + 1e-12


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_sound_runs_are_refuted_no_more_often_than_the_confidence_allows():
    """200 audits of `tiny`, seeds 100 to 299."""
    found = [audited(seed=seed, canaries=60_000) for seed in range(100, 300)]
    failed = sum(not audit.passed for audit in found)
    assert binomtest(failed, len(found), SIGNIFICANCE, alternative="greater").pvalue > 0.01
    assert np.median([audit.lower_bound for audit in found]) > 0.6


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
    assert plain.bound != "f-DP"
    assert plain.lower_bound > 0.2
    real = private_gradients.gaussian_noise
    monkeypatch.setattr(
        private_gradients, "gaussian_noise", lambda size, std, g: real(size, std, g) / 10
    )
    assert not audited(*settings, paradigm="federated_dp").passed


def quieter(monkeypatch, factor):
    """Divide the noise of joint releases, and leave what is claimed and scored as it is."""
    right = PrivacyTerms.noise_stds

    def wrong(terms, sigma):
        return {name: std / factor for name, std in right(terms, sigma).items()}

    def only_the_release(sums, institution, grid, seed, real=secure_integers.noisy_words):
        with monkeypatch.context() as patch:
            patch.setattr(PrivacyTerms, "noise_stds", wrong)
            return real(sums, institution, grid, seed)

    monkeypatch.setattr("fedfuse_ray.audit.attacks.releases.noisy_words", only_the_release)


@pytest.mark.parametrize(
    ("factor", "canaries", "least"), [(math.sqrt(15), 30_000, 2.0), (1.5, 100_000, 1.0)]
)
def test_noise_that_is_too_small_is_caught(monkeypatch, factor, canaries, least):
    quieter(monkeypatch, factor)
    audit = audited(canaries=canaries)
    assert not audit.passed
    assert audit.tests[0].group == EVERY
    assert audit.tests[0].lower_bound > least


def test_canary_institutions_pass_and_catch_small_noise_and_a_missing_clip(monkeypatch):
    settings = ("privacy.mode=client",)
    sound = audited(*settings, canaries=6000)
    assert sound.passed
    assert sound.unit == "institution"
    with monkeypatch.context() as patch:
        real = transforms.gaussian_noise
        patch.setattr(
            transforms, "gaussian_noise", lambda size, std, g: real(size, std, g) / math.sqrt(15)
        )
        assert not audited(*settings, canaries=6000).passed
    with monkeypatch.context() as patch:
        patch.setattr(transforms, "clipped", lambda blocks, clip_norm: blocks)
        patch.setattr(summing, "clipped", lambda blocks, clip_norm: blocks)
        assert not audited(*settings, canaries=6000).passed


@pytest.mark.parametrize("mode", ["record-distributed", "client"])
def test_noise_that_two_runs_of_one_seed_share_is_caught(monkeypatch, mode):
    named_by_use_alone(monkeypatch)
    audit = audited(f"privacy.mode={mode}", "compression.codec=fp32", canaries=6000)
    assert audit.worst.group == TWO_RUNS
    assert not audit.passed
    assert audit.lower_bound <= audit.epsilon  # one of the two alone shows nothing


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
        guesses = next(test.total for test in audit.tests if test.group == JOINT)
        return guesses.correct / guesses.guessed

    right = correct(audited())
    monkeypatch.setattr(private_gradients, "clip_and_sum_torch", block_by_block)
    assert correct(audited()) > right + 0.05
