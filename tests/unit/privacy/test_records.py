"""Releases of records that nobody trains on are other records' releases: they add up apart."""

from __future__ import annotations

import pytest

from fedfuse_ray.errors import FedfuseError, InputError
from fedfuse_ray.privacy.accounting.budget import Account
from fedfuse_ray.privacy.accounting.epsilon import epsilon
from fedfuse_ray.privacy.accounting.ledger import Ledger, PrivacyEvent, read_ledger, to_dp_event
from fedfuse_ray.privacy.accounting.matching import Latitude, match
from fedfuse_ray.studies.sweeping.selection import selection_cost

DELTA = 1e-5


def release(sigma, records=None, observer=None, count=1):
    return PrivacyEvent(
        1, "a", (), "gaussian", sigma, count=count, observer=observer, records=records
    )


def test_an_institutions_epsilon_is_that_of_the_record_that_loses_most():
    training, scores = release(3.0, count=4), release(2.0, "test")
    assert epsilon([training, scores], DELTA) == epsilon([training], DELTA)
    assert epsilon([training, release(1.0, "test")], DELTA) == epsilon([release(1.0)], DELTA)
    assert epsilon([scores], DELTA) == epsilon([release(2.0)], DELTA)


def test_several_scores_of_the_same_records_add_up():
    both = epsilon([release(2.0, "test"), release(2.0, "test")], DELTA)
    assert both == pytest.approx(epsilon([release(2.0, count=2)], DELTA), rel=1e-12)


def test_what_observers_see_of_trained_records_is_theirs_alone():
    uplink, downlink, scores = release(3.0, None, "uplink"), release(4.0, None, "downlink"), 5.0
    events = [uplink, downlink, release(scores, "test")]
    assert epsilon(events, DELTA) == epsilon([release(3.0)], DELTA)


def test_an_account_grows_the_same_way():
    events = [release(3.0), release(2.9, "test"), release(3.0)]
    account = Account.open(DELTA)
    for event in events:
        account = account.charge([event])
    assert account.epsilon == pytest.approx(epsilon([release(3.0, count=2)], DELTA), rel=1e-12)
    assert account == Account.open(DELTA, ledger=account.ledger)


def test_choosing_among_runs_is_priced_for_either_part():
    ledger = Ledger((release(9.0), release(3.0, "test")))
    cost = selection_cost([ledger, ledger, Ledger((release(9.0),))], DELTA)
    assert cost.fixed == pytest.approx(epsilon([release(3.0, count=2)], DELTA), rel=1e-9)


def test_the_part_survives_the_file_and_an_unknown_one_raises(tmp_path):
    path, ledger = tmp_path / "ledger.jsonl", Ledger((release(3.0, "test"), release(4.0)))
    ledger.write(path)
    assert read_ledger(path) == ledger
    assert path.read_text().count("records") == 1
    path.write_text(path.read_text().replace('"test"', '"moon"'))
    with pytest.raises(InputError, match="records: 'moon'"):
        read_ledger(path)


def test_an_outside_accountant_is_given_one_part_at_a_time():
    with pytest.raises(InputError, match="records"):
        to_dp_event([release(3.0), release(3.0, "test")])


def test_scores_are_matched_and_never_scaled():
    wanted = [release(3.0, "test")]
    allowed = Latitude(again=True, spread=1.5, rounds=3, unknown=frozenset({"rho"})).of_scores
    assert match([release(3.0, "test")], wanted, allowed) == {}
    exact = Latitude(spread=1.5, rounds=3).of_scores
    for found in ([], [*wanted, *wanted], [release(2.9, "test")]):
        with pytest.raises(FedfuseError):
            match(found, wanted, exact)
