from __future__ import annotations

import math
import time
import warnings

import pytest
from dp_accounting.rdp import RdpAccountant
from opacus.accountants import PRVAccountant, RDPAccountant

from fedfuse_ray.errors import BudgetSpentError, InputError
from fedfuse_ray.privacy.accounting.budget import Account
from fedfuse_ray.privacy.accounting.calibration import calibrate, calibrate_noise_multiplier
from fedfuse_ray.privacy.accounting.epsilon import epsilon, epsilon_by_institution, largest
from fedfuse_ray.privacy.accounting.ledger import PrivacyEvent, to_dp_event
from fedfuse_ray.privacy.mechanisms.integers import concentrated_terms, integer_scale

DELTA = 1e-5


def gaussian(sigma, rate=1.0, count=1, institution="a", round_=0):
    return PrivacyEvent(round_, institution, ("fusion",), "gaussian", sigma, rate, count)


def opacus(accountant, releases):
    # Opacus warns whenever the best order is at the end of its list.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for sigma, rate, count in releases:
            accountant.history.append((sigma, rate, count))
        return float(accountant.get_epsilon(DELTA))


RUNS = {
    "small batches": [(1.92, 64 / 1650, 130)],
    "many steps": [(10.5, 64 / 1650, 5200)],
    "large batches": [(10.3, 4096 / 32935, 540)],
    "little noise": [(0.8, 64 / 1650, 100)],
    "changing noise": [(2.0, 0.05, 100), (3.0, 0.05, 200)],
    "changing rate": [(4.0, 0.1, 50), (4.0, 0.3, 20), (9.0, 1.0, 5)],
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())
def test_prv_agrees_within_one_percent_and_rdp_lies_above(run):
    ours = epsilon([gaussian(*release) for release in run], DELTA)
    prv = opacus(PRVAccountant(), run)
    assert ours == pytest.approx(prv, rel=0.01, abs=0.011)  # PRV's own error is 0.01
    rdp = opacus(RDPAccountant(), run)
    assert ours <= rdp <= ours * 1.35


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())
def test_renyi_accounting_is_the_outside_accountants_and_looser(run):
    events = [gaussian(*release) for release in run]
    outside = RdpAccountant().compose(to_dp_event(events)).get_epsilon(DELTA)
    assert epsilon(events, DELTA, "rdp") == pytest.approx(outside, rel=1e-9)
    assert epsilon(events, DELTA) < outside


@pytest.mark.parametrize("rate", [1.0, 0.05])
def test_renyi_accounting_calibrates_to_the_budget_with_more_noise(rate):
    sigma = calibrate_noise_multiplier(2.0, DELTA, rate, 100, accountant="rdp")
    spent = epsilon([gaussian(sigma, rate, 100)], DELTA, "rdp")
    assert 1.99 <= spent <= 2.0
    assert sigma > calibrate_noise_multiplier(2.0, DELTA, rate, 100)
    account = Account.open(DELTA, 2.0, accountant="rdp").charge([gaussian(sigma, rate, 100)])
    assert account.epsilon == spent
    with pytest.raises(BudgetSpentError):
        account.charge([gaussian(sigma, rate)])


def test_discrete_mechanisms_cost_the_same_under_either_accountant():
    events = [PrivacyEvent(0, "a", (), "skellam", 10.0, rho=0.005, xi=1e-6), gaussian(3.0, 0.1)]
    assert epsilon(events, DELTA, "rdp") == epsilon(events, DELTA)


def test_full_batch_at_epsilon_one():
    for steps in (1, 40, 200):
        assert epsilon([gaussian(3.735 * math.sqrt(steps), 1.0, steps)], DELTA) == pytest.approx(
            1.0, rel=2e-3
        )


def test_full_batch_rounds_with_different_noise_compose_like_one():
    events = [gaussian(sigma) for sigma in (5.0, 10.0, 20.0)]
    one = gaussian((5.0**-2 + 10.0**-2 + 20.0**-2) ** -0.5)
    assert epsilon(events, DELTA) == pytest.approx(epsilon([one], DELTA), rel=1e-9)


def test_order_and_folding_do_not_matter():
    events = [gaussian(2.0, 0.1), gaussian(3.0, 0.2), gaussian(2.0, 0.1), gaussian(9.0)]
    folded = [gaussian(2.0, 0.1, 2), gaussian(9.0), gaussian(3.0, 0.2)]
    assert epsilon(events, DELTA) == pytest.approx(epsilon(folded, DELTA), rel=1e-6)


def test_more_of_anything_costs_more():
    base = epsilon([gaussian(3.0, 0.1, 50)], DELTA)
    assert base < epsilon([gaussian(3.0, 0.1, 51)], DELTA)
    assert base < epsilon([gaussian(2.9, 0.1, 50)], DELTA)
    assert base < epsilon([gaussian(3.0, 0.11, 50)], DELTA)
    assert base < epsilon([gaussian(3.0, 0.1, 50)], DELTA / 10)
    assert epsilon([], DELTA) == 0.0


@pytest.mark.parametrize(
    ("target", "rate", "steps"),
    [(1.0, 1.0, 60), (1.0, 64 / 1650, 130), (8.0, 0.05, 400), (0.1, 0.02, 50), (200.0, 1.0, 3)],
)
def test_calibration_never_overshoots_and_wastes_nothing(target, rate, steps):
    sigma = calibrate_noise_multiplier(target, DELTA, rate, steps)
    reached = epsilon([gaussian(sigma, rate, steps)], DELTA)
    assert reached <= target
    assert reached >= target * 0.995


def test_calibration_is_monotone():
    sigmas = [calibrate_noise_multiplier(e, DELTA, 0.04, 100) for e in (0.5, 1, 1.1, 2, 4, 8)]
    assert sigmas == sorted(sigmas, reverse=True)
    by_steps = [calibrate_noise_multiplier(1.0, DELTA, 0.04, n) for n in (1, 10, 11, 100)]
    assert by_steps == sorted(by_steps)


def test_a_schedule_calibrates_to_the_same_budget():
    factors = (2.0, 1.0, 1.0, 0.5)
    sigma = calibrate_noise_multiplier(1.0, DELTA, 1.0, 4, factors)
    spent = epsilon([gaussian(sigma * factor) for factor in factors], DELTA)
    assert 0.995 <= spent <= 1.0
    with pytest.raises(InputError, match="steps"):
        calibrate_noise_multiplier(1.0, DELTA, 1.0, 5, factors)


@pytest.mark.parametrize("mechanism", ["skellam", "discrete-gaussian"])
@pytest.mark.parametrize("rate", [1.0, 0.05])
def test_discrete_mechanisms_calibrate_close_to_the_gaussian(mechanism, rate):
    scale = integer_scale(0.5, 5_000)

    def releases(sigma):
        rho, xi = concentrated_terms(mechanism, sigma, scale, shares=14)
        return [PrivacyEvent(0, "a", (), mechanism, sigma, rate, 40, rho=rho, xi=xi)]

    sigma = calibrate(releases, 1.0, DELTA)
    assert epsilon(releases(sigma), DELTA) <= 1.0
    gaussian_sigma = calibrate_noise_multiplier(1.0, DELTA, rate, 40)
    # Renyi accounting is looser than PLD, the general amplification bound looser still.
    assert gaussian_sigma < sigma < gaussian_sigma * (1.12 if rate == 1.0 else 3.0)


def test_a_mixed_run_costs_more_than_its_parts():
    discrete = PrivacyEvent(0, "a", (), "skellam", 10.0, rho=0.005, xi=1e-6)
    alone = epsilon([discrete], DELTA)
    assert alone < epsilon([discrete, gaussian(3.0, 0.1, 10)], DELTA)
    assert epsilon([gaussian(5.0)], DELTA) < epsilon([discrete, gaussian(5.0)], DELTA)


def test_bad_deltas_and_targets_are_refused():
    with pytest.raises(InputError, match="delta"):
        epsilon([gaussian(1.0)], 0.0)
    with pytest.raises(InputError, match="target_epsilon"):
        calibrate_noise_multiplier(-1.0, DELTA, 1.0, 1)


def test_institutions_compose_in_parallel():
    events = [gaussian(4.0, institution="a"), gaussian(2.0, institution="b")] * 3
    by_name = epsilon_by_institution(events, DELTA)
    assert by_name["a"] == epsilon([gaussian(4.0, count=3)], DELTA)
    assert largest(by_name) == by_name["b"] > by_name["a"]
    assert largest({}) == 0.0


def test_a_spent_budget_stops_before_the_release():
    sigma = calibrate_noise_multiplier(1.0, DELTA, 1.0, 3)
    account = Account.open(DELTA, 1.0)
    for round_ in range(3):
        account = account.charge([gaussian(sigma, institution=n, round_=round_) for n in "ab"])
    assert 0.995 <= account.epsilon <= 1.0
    with pytest.raises(BudgetSpentError, match="bring a to epsilon"):
        account.charge([gaussian(sigma, institution="a", round_=3)])
    assert len(account.ledger) == 6  # what was released so far is kept
    assert account.epsilons == epsilon_by_institution(account.ledger, DELTA)


def test_a_resumed_account_goes_on_where_the_ledger_stopped():
    first = Account.open(DELTA, 1.0).charge([gaussian(8.0, 0.1, 5), gaussian(9.0)])
    resumed = Account.open(DELTA, 1.0, first.ledger)
    assert resumed == first
    with pytest.raises(BudgetSpentError):
        Account.open(DELTA, 0.01, first.ledger)


@pytest.mark.parametrize("rate", [1.0, 0.05])
def test_a_round_is_accounted_in_milliseconds(rate):
    account = Account.open(DELTA)
    started = time.process_time()
    for round_ in range(20):
        account = account.charge([gaussian(20.0, rate, 5, f"site-{i}", round_) for i in range(15)])
    assert (time.process_time() - started) / 20 < 0.25  # about 2-30 ms on an idle core


def test_a_changing_schedule_is_accounted_round_by_round_as_in_one_go():
    account, events, started = Account.open(DELTA), [], time.process_time()
    for round_ in range(30):
        events.append(gaussian(4.0 + round_ / 100, 0.05, 10, "a", round_))
        account = account.charge(events[-1:])
    assert (time.process_time() - started) / 30 < 0.5  # about 40 ms on an idle core
    assert account.epsilon == pytest.approx(epsilon(reversed(events), DELTA), rel=1e-3)
