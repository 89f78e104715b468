"""What the ledger is charged for noise that is rounded share by share."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from dp_accounting import gaussian_mechanism

from fedfuse_ray.errors import FedfuseError, InputError
from fedfuse_ray.privacy.accounting import renyi
from fedfuse_ray.privacy.accounting.budget import Account
from fedfuse_ray.privacy.accounting.calibration import calibrate_noise_multiplier
from fedfuse_ray.privacy.accounting.epsilon import epsilon
from fedfuse_ray.privacy.accounting.ledger import Ledger, PrivacyEvent, read_ledger
from fedfuse_ray.privacy.accounting.matching import Latitude, match
from fedfuse_ray.privacy.mechanisms.rounding import RIPPLE
from fedfuse_ray.studies.sweeping.selection import selection_cost
from tests.support.privacy.secure_sums import COARSE, FINE, secure_plan

DELTA = 1e-5


def events(ripple, times=10, **fields):
    event = PrivacyEvent(1, "med-01", ("fusion",), "gaussian", 8.0, ripple=ripple, **fields)
    return [replace(event, round=number + 1) for number in range(times)]


def test_the_laws_factor_enters_epsilon_and_delta():
    gamma = 0.01
    smooth = gaussian_mechanism.get_epsilon_gaussian(8.0 / math.sqrt(10), DELTA * math.exp(-gamma))
    assert epsilon(events(gamma / 10), DELTA) == pytest.approx(smooth + 2 * gamma, rel=1e-9)
    assert epsilon(events(0.0), DELTA) == epsilon(events(None), DELTA)
    account = Account.open(DELTA).charge(events(gamma / 10))
    assert account.epsilon == pytest.approx(smooth + 2 * gamma, rel=1e-9)


@pytest.mark.parametrize("fields", [{"sampling_rate": 0.2}, {"count": 3}])
@pytest.mark.parametrize("accountant", ["pld", "rdp"])
def test_every_accountant_charges_it(accountant, fields):
    found, smooth = (epsilon(events(g, **fields), DELTA, accountant) for g in (0.01, None))
    gamma = 0.1 * fields.get("count", 1)
    # What a smaller delta adds is small; 2 gamma is not.
    assert smooth + 2 * gamma < found < smooth + 2.5 * gamma


def test_choosing_among_runs_pays_for_it():
    cheap, dear = (selection_cost([Ledger(tuple(events(g)))] * 4, DELTA) for g in (None, 0.01))
    assert dear.fixed >= cheap.fixed + 2 * 4 * 0.1
    assert dear.geometric > cheap.geometric + 0.1


def test_renyi_divergences_grow_by_no_more_than_is_charged():
    """Two laws within exp(+-gamma) of two Gaussians, tilted against each other."""
    gamma, x = 0.05, np.linspace(-12, 13, 20_001)
    gaussians = [np.exp(-((x - m) ** 2) / 2) for m in (0.0, 1.0)]
    one, other = (g / g.sum() for g in gaussians)
    sign = np.sign(np.sin(40 * x))
    p, q = one * np.exp(gamma * sign), other * np.exp(-gamma * sign)
    for order in (2.0, 8.0):
        grown = np.log((p**order * q ** (1 - order)).sum()) / (order - 1)
        smooth = np.log((one**order * other ** (1 - order)).sum()) / (order - 1)
        assert smooth < grown <= smooth + renyi.of_ripple(gamma, np.array([order]))[0]


def test_a_calibrated_run_ends_within_its_budget():
    sigma = calibrate_noise_multiplier(1.0, DELTA, 1.0, 10, ripple=0.1)
    spent = epsilon([replace(e, noise_multiplier=sigma) for e in events(0.01)], DELTA)
    assert 0.999 < spent <= 1.0
    # Negative control: noise that does not know of the ripple overdraws.
    ignorant = calibrate_noise_multiplier(1.0, DELTA, 1.0, 10)
    assert epsilon([replace(e, noise_multiplier=ignorant) for e in events(0.01)], DELTA) > 1.15


def test_it_lies_in_the_ledger_and_comes_back(tmp_path):
    ledger = Ledger(tuple(events(1e-7, times=2)))
    ledger.write(tmp_path / "ledger.jsonl")
    assert read_ledger(tmp_path / "ledger.jsonl") == ledger
    assert "ripple" in (tmp_path / "ledger.jsonl").read_text()


@pytest.mark.parametrize("ripple", [-1e-9, math.inf, math.nan])
def test_other_ripples_are_refused(ripple):
    with pytest.raises(InputError, match="ripple"):
        events(ripple)


def test_a_proved_discrete_mechanism_has_none():
    with pytest.raises(InputError, match="ripple"):
        PrivacyEvent(1, "a", (), "skellam", 2.0, rho=0.1, xi=0.0, ripple=1e-7)


def test_a_ledger_without_it_is_found_out():
    with pytest.raises(FedfuseError, match="ripple is None, expected 1e-07"):
        match(events(None), events(1e-7), Latitude())
    assert match(events(1e-7), events(1e-7), Latitude()) == {}


@pytest.mark.parametrize("codec", [FINE, COARSE])
def test_a_whole_run_is_charged_the_same_whatever_its_rounds(codec):
    for rounds in (4, 12):
        plan = secure_plan(codec, f"training.rounds={rounds}")
        charged = [plan.privacy.events("med-01", (), r + 1)[0].ripple for r in range(rounds)]
        assert sum(charged) == pytest.approx(RIPPLE)
    for mechanism in ("skellam", "discrete-gaussian"):
        (event,) = secure_plan(codec, f"privacy.mechanism={mechanism}").privacy.events(
            "med-01", (), 1
        )
        assert event.ripple is None
