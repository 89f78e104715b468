"""An adaptive schedule spends the budget, all of it and no more, whatever it is shown."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedfuse_ray.errors import BudgetSpentError
from fedfuse_ray.privacy.accounting.adaptive_budget import Signal, Spending, cost
from fedfuse_ray.privacy.accounting.budget import Account
from fedfuse_ray.privacy.accounting.calibration import calibrate_noise_multiplier
from fedfuse_ray.privacy.accounting.ledger import PrivacyEvent

DELTA = 1e-5
SIGNALS = st.lists(
    st.builds(Signal, st.floats(-1e6, 1e6, width=32), st.floats(0.0, 1e3)), min_size=1, max_size=60
)


def chosen(spending, signals):
    factors = [1.0]
    for seen in range(1, spending.rounds):
        factors.append(spending.next_factor(factors, signals[:seen]))
    return factors


@given(SIGNALS, st.floats(1.01, 16.0))
def test_every_run_costs_what_a_constant_schedule_does(signals, spread):
    factors = chosen(Spending(len(signals), spread), signals)
    assert cost(factors) <= len(signals) * (1 + 1e-12)
    assert cost(factors) == pytest.approx(len(signals), rel=1e-5)
    assert all(1 / spread - 1e-5 <= f <= spread * (1 + 1e-5) for f in factors)
    assert all(float(np.float32(f)) == f for f in factors)


@given(st.lists(st.floats(0.2, 5.0), min_size=1, max_size=30))
@settings(deadline=None)
def test_the_account_stops_any_sequence_of_factors_within_the_budget(factors):
    rounds = 10
    sigma = calibrate_noise_multiplier(1.0, DELTA, 1.0, rounds)
    account, made = Account.open(DELTA, 1.0), []
    for number, factor in enumerate(factors, 1):
        try:
            account = account.charge([PrivacyEvent(number, "a", (), "gaussian", sigma * factor)])
        except BudgetSpentError:
            assert cost([*made, factor]) > rounds
            break
        made.append(factor)
    assert account.epsilon <= 1.0 + 1e-9
    assert cost(made) <= rounds * (1 + 1e-3)


def test_a_fading_signal_is_paid_for_early_and_a_growing_one_late():
    spending, fading = Spending(40, 1.5), [Signal(0.9**t, 0.0) for t in range(40)]
    assert cost(chosen(spending, fading)[:20]) > 22
    assert cost(chosen(spending, fading[::-1])[:20]) < 18
    assert chosen(spending, [Signal(1.0, 0.0)] * 40) == pytest.approx([1.0] * 40, rel=1e-5)


def test_what_cannot_be_told_from_noise_leaves_the_noise_as_it_is():
    noisy = [Signal(0.9**t, 5.0) for t in range(40)]
    assert chosen(Spending(40, 1.5), noisy) == pytest.approx([1.0] * 40, rel=1e-5)
