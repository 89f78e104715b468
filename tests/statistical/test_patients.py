"""Patients as units: sampled as Poisson says, and canary patients against what the ledger claims.

The faults are planted into the code that training runs.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from fedfuse_ray.audit.attacks.canary_audit import audit_canaries
from fedfuse_ray.federation.institution import private_gradients
from fedfuse_ray.federation.institution.institution import Institution, NetCache
from fedfuse_ray.federation.rounds.charging import Charging
from fedfuse_ray.models.initial import block_sizes, initial_blocks
from tests.support.federations import dataset_of, plan_of, tiny

PATIENTS = ("data.specimens_per_patient=4", "privacy.unit=patient")


def audited(*settings, paradigm="fedfuse", change=lambda plan: plan, unit=PATIENTS):
    """Return the audit of a changed plan against what the ledger of the unchanged one says."""
    experiment = tiny(*unit, *settings, paradigm=paradigm)
    plan, index = plan_of(experiment), dataset_of(experiment).index
    rounds = plan.experiment.training.rounds
    charging = Charging.open(plan)
    for number in range(1, rounds + 1):
        charging.charge(number)
    epsilon, sizes = charging.epsilon, block_sizes(plan.spec)
    given = {"epsilon": epsilon, "rounds": rounds, "canaries": 5000, "seed": 0}
    return audit_canaries(change(plan), sizes, index, **given)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param((), id="mean"),
        pytest.param(("privacy.patient_gradient=sum", "privacy.records_per_patient=2"), id="sum"),
        pytest.param(("privacy.institutions_per_unit=2",), id="two institutions"),
        pytest.param(
            ("privacy.institutions_per_unit=2", "privacy.mechanism=skellam"),
            id="integers",
            marks=pytest.mark.slow,
        ),
        pytest.param(("privacy.sampling_rate=0.5",), id="sampled", marks=pytest.mark.slow),
    ],
)
def test_canary_patients_confirm_epsilon_1(settings):
    audit = audited(*settings)
    assert audit.epsilon == pytest.approx(1.0, rel=1e-2)
    assert audit.passed
    assert audit.lower_bound > 0.1


LOCAL = "privacy.target_epsilon=1.0"
"""A claim that canaries can reach; the preset's recipe of this paradigm has 8."""


@pytest.mark.slow
def test_canary_patients_of_institutions_that_train_by_themselves_pass():
    assert audited(LOCAL, paradigm="federated_dp").passed


def records_by_themselves(data, chosen, config, *place):
    """Sample patients, and clip each of their records by itself: the planted fault."""
    return torch.from_numpy(np.flatnonzero(np.isin(data.units.numpy(), chosen))), None


@pytest.mark.parametrize(
    "paradigm", ["fedfuse", pytest.param("federated_dp", marks=pytest.mark.slow)]
)
def test_a_clip_of_records_instead_of_patients_is_caught(monkeypatch, paradigm):
    monkeypatch.setattr(private_gradients, "records_of", records_by_themselves)
    assert not audited(LOCAL, paradigm=paradigm).passed


def test_noise_for_one_institution_where_units_stand_at_four_is_caught():
    def for_one(plan):
        releases = {
            name: dataclasses.replace(r, noise_multiplier=r.noise_multiplier / 4)
            for name, r in plan.privacy.releases.items()
        }
        return dataclasses.replace(
            plan, privacy=dataclasses.replace(plan.privacy, releases=releases)
        )

    assert not audited("privacy.institutions_per_unit=4", change=for_one, unit=()).passed


RATE = 0.3


@pytest.fixture(scope="module")
def institution():
    plan = plan_of(tiny(*PATIENTS, f"privacy.sampling_rate={RATE}", paradigm="fedfuse"))
    return Institution(plan, plan.participants[0], dataset_of(plan.experiment), NetCache(plan))


def batches(institution, rounds):
    """Return the patients of every record of each joint step."""
    training = institution._training(initial_blocks(institution.plan.spec))
    original, found = private_gradients.clipped_gradient_sum, []

    def noting(training, rows, *rest):
        found.append(training.data.units[rows].numpy())
        return original(training, rows[:0], *rest[:-1], None)

    plan = institution.plan
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(private_gradients, "clipped_gradient_sum", noting)
        for number in range(1, rounds + 1):
            private_gradients.joint_step(training, number, plan.privacy, plan.randomness)
    return found


def whole_and_poisson(institution, found):
    """Whether patients come whole, and their number varies as independent draws make it."""
    units = institution._train_data.units.numpy()
    held = np.bincount(units)
    whole = all(np.all(np.bincount(b, minlength=len(held))[b] == held[b]) for b in found)
    counts = np.array([len(set(batch.tolist())) for batch in found])
    variance = len(held) * RATE * (1 - RATE)
    centred = abs(counts.mean() - len(held) * RATE) < 5 * math.sqrt(variance / len(found))
    spread = abs(np.var(counts) / variance - 1) < 5 * math.sqrt(2 / len(found))
    return whole and bool(centred and spread)


def test_patients_are_sampled_whole_and_independently(institution):
    assert institution._train_data.unit_count == institution.participant.patients
    assert whole_and_poisson(institution, batches(institution, 300))


def test_a_sampler_of_records_is_caught(institution, monkeypatch):
    def of_records(data, chosen, config, draws, name, round_, step=0):
        kept = draws.stream("fault", name, round_).random(len(data)) < RATE
        return torch.from_numpy(np.flatnonzero(kept)), None

    monkeypatch.setattr(private_gradients, "records_of", of_records)
    assert not whole_and_poisson(institution, batches(institution, 300))
