from __future__ import annotations

import pytest
from pydantic import ValidationError

from fedfuse_ray.config.settings.privacy import PrivacyConfig
from fedfuse_ray.errors import InputError

DISTRIBUTED = {"mode": "record-distributed", "target_epsilon": 1, "noise_schedule": "adaptive"}


def test_defaults_protect_nothing_and_say_so():
    config = PrivacyConfig()
    assert (config.enabled, config.protected_unit, config.adversary) == (False, "none", "none")
    assert (config.delta, config.clip_norm, config.sampling_rate) == (1e-5, 0.5, 1.0)


@pytest.mark.parametrize(
    ("mode", "unit"),
    [
        ("record-local", "record"),
        ("record-distributed", "record"),
        ("client", "institution"),
        ("local-update", "institution"),
    ],
)
def test_every_mode_names_its_unit_and_adversary(mode, unit):
    config = PrivacyConfig(mode=mode, target_epsilon=1.0)
    assert config.protected_unit == unit
    assert unit in config.neighbouring
    assert "server" in config.adversary


@pytest.mark.parametrize("mode", ["record-local", "record-distributed"])
def test_a_patient_is_the_unit_where_it_is_asked_for(mode):
    config = PrivacyConfig(mode=mode, target_epsilon=1.0, unit="patient")
    assert (config.protected_unit, config.of_patients) == ("patient", True)
    assert "all that one patient's records contribute" in config.neighbouring
    assert not PrivacyConfig(unit="patient").of_patients  # nothing is protected


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mode": "client", "target_epsilon": 1, "unit": "patient"}, "unit: 'patient' under mode"),
        ({"mode": "local-update", "target_epsilon": 1, "unit": "patient"}, "unit: 'patient'"),
        ({"unit": "institution"}, "unit"),
        ({"records_per_patient": 0}, "records_per_patient"),
        ({"patient_gradient": "median"}, "patient_gradient"),
        (
            {"mode": "record-local", "target_epsilon": 1, "institutions_per_unit": 2},
            "institutions_per_unit: '2' is charged for full batches",
        ),
        (
            {
                **{"mode": "record-distributed", "target_epsilon": 1, "sampling_rate": 0.5},
                "institutions_per_unit": 2,
            },
            "institutions_per_unit: '2' is charged for full batches",
        ),
        ({"mode": "record-local"}, "exactly one"),
        ({"mode": "client", "target_epsilon": 1, "noise_multiplier": 1}, "exactly one"),
        ({"delta": 0.0}, "delta"),
        ({"delta": 1.0}, "delta"),
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"clip_norm": float("inf")}, "clip_norm"),
        ({"sampling_rate": 1.1}, "sampling_rate"),
        ({"tolerated_dropouts": -1}, "tolerated_dropouts"),
        ({"target_epsilon": -1.0}, "target_epsilon"),
        ({"noise_schedule": [1.0, 0.0]}, "noise_schedule"),
        ({"noise_schedule": "banded"}, "should be 'constant' or 'adaptive'"),
        ({"mechanism": "laplace"}, "mechanism"),
        ({"adaptive_clipping": {"count_noise": 0.5}}, "count_noise"),
        ({"mode": "record-local", "target_epsilon": 1, "mechanism": "skellam"}, "mechanism"),
        ({"mode": "local-update", "target_epsilon": 1, "sampling_rate": 0.5}, "sampling_rate"),
        ({"mode": "client", "target_epsilon": 1, "groups": {"ct": {"clip_norm": 1}}}, "groups"),
        (
            {"mode": "record-local", "target_epsilon": 1, "noise_schedule": "adaptive"},
            "noise_schedule: 'adaptive' with mode record-local",
        ),
        ({**DISTRIBUTED, "sampling_rate": 0.5}, "with sampling_rate 0.5"),
        ({**DISTRIBUTED, "mechanism": "skellam"}, "with mechanism skellam"),
        ({"mode": "client", "noise_multiplier": 1, "audit": "a.json"}, "audit: 'a.json'"),
        (
            {
                "mode": "record-local",
                "target_epsilon": 1,
                "groups": {"ct": {"clip_norm": 1}},
                "adaptive_clipping": {"enabled": True},
            },
            "adaptive_clipping",
        ),
    ],
)
def test_what_cannot_hold_is_refused(settings, said):
    with pytest.raises(ValidationError, match=said):
        PrivacyConfig.model_validate(settings)


def test_leftover_settings_do_no_harm_without_privacy():
    assert not PrivacyConfig(target_epsilon=1.0, noise_multiplier=2.0).enabled


def test_the_noise_schedule_has_a_factor_a_round():
    assert PrivacyConfig().noise_factors(3) == (1.0, 1.0, 1.0)
    config = PrivacyConfig(noise_schedule=(2.0, 1.0))
    assert config.noise_factors(2) == (2.0, 1.0)
    with pytest.raises(InputError, match=r"privacy\.noise_schedule"):
        config.noise_factors(3)
