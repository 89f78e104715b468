"""Who sees what: events of the uplink and of the downlink, and the epsilon against either."""

from __future__ import annotations

import json
import math

import pytest

from fedfuse_ray.cli import main
from fedfuse_ray.errors import InputError
from fedfuse_ray.privacy.accounting.budget import Account
from fedfuse_ray.privacy.accounting.epsilon import epsilon
from fedfuse_ray.privacy.accounting.ledger import Ledger, PrivacyEvent, read_ledger, to_dp_event
from fedfuse_ray.studies.sweeping.selection import selection_cost
from tests.support.federations import plan_of, tiny

DELTA = 1e-5


def release(sigma, observer=None, count=1):
    return PrivacyEvent(
        1, "a", ("fusion",), "gaussian", sigma, count=count, unit="institution", observer=observer
    )


def test_epsilon_is_that_of_the_observer_who_learns_most():
    up, down = release(3.0, "uplink", 4), release(4.0, "downlink", 4)
    assert epsilon([up, down], DELTA) == epsilon([release(3.0, count=4)], DELTA)
    assert epsilon([up, release(2.0, "downlink", 4)], DELTA) == epsilon(
        [release(2.0, count=4)], DELTA
    )


def test_what_everybody_sees_is_added_to_what_each_observer_sees():
    everyone, up, down = release(5.0, count=2), release(3.0, "uplink"), release(4.0, "downlink")
    both = [everyone, release(3.0)]
    assert epsilon([everyone, up, down], DELTA) == pytest.approx(epsilon(both, DELTA), rel=1e-12)


def test_an_account_grows_with_both_and_ends_where_the_whole_ledger_does():
    events = [release(3.0, "uplink"), release(4.0, "downlink")] * 5 + [release(9.0)]
    account = Account.open(DELTA)
    for event in events:
        account = account.charge([event])
    assert account.epsilon == pytest.approx(epsilon(events, DELTA), rel=1e-12)
    assert account == Account.open(DELTA, ledger=account.ledger)


def test_an_observer_survives_the_file_and_an_unknown_one_raises(tmp_path):
    path, ledger = tmp_path / "ledger.jsonl", Ledger((release(3.0, "uplink"), release(4.0)))
    ledger.write(path)
    assert read_ledger(path) == ledger
    assert path.read_text().count("observer") == 1
    path.write_text(path.read_text().replace('"uplink"', '"moon"'))
    with pytest.raises(InputError, match="observer: 'moon'"):
        read_ledger(path)


def test_an_outside_accountant_is_given_one_observer_at_a_time():
    up, down = release(3.0, "uplink"), release(4.0, "downlink")
    assert len(to_dp_event([up, release(5.0)]).events) == 2
    with pytest.raises(InputError, match="observer"):
        to_dp_event([up, down])


def test_choosing_among_runs_costs_the_worst_observers_sum():
    ledgers = [Ledger((release(s, "uplink"), release(2 * s, "downlink"))) for s in (3.0, 4.0)]
    cost = selection_cost(ledgers, DELTA)
    assert cost.fixed == pytest.approx(epsilon([release(3.0), release(4.0)], DELTA), rel=1e-12)


@pytest.mark.parametrize("seen", [1, 3, 12])
def test_both_ways_cost_the_budget_and_no_upload_is_charged_that_nobody_saw(seen):
    settings = ("privacy.mode=local-update", "training.rounds=12", "privacy.target_epsilon=8")
    plan = plan_of(tiny(*settings, f"privacy.uplink_exposures={seen}", paradigm="fedfuse"))
    events = [e for round in range(1, 13) for e in plan.privacy.events("med-01", (), round)]
    up = [e for e in events if e.observer == "uplink"]
    down = [e for e in events if e.observer == "downlink"]
    assert (len(up), len(down)) == (seen, 12)
    assert epsilon(down, DELTA) == pytest.approx(epsilon(up, DELTA), rel=1e-9)
    assert 7.99 < epsilon(events, DELTA) <= 8.0 * (1 + 1e-9)
    assert down[0].noise_multiplier == pytest.approx(
        math.sqrt(12 / seen) * up[0].noise_multiplier, rel=1e-12
    )


def test_the_account_command_answers_for_both_ways(capsys):
    asked = ["account", "--epsilon", "8", "--rounds", "20", "--exposures", "2"]
    assert main([*asked, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    sigma = told["noise_multiplier"]
    assert (told["steps"], told["epsilon"]) == (2, epsilon([release(sigma, count=2)], DELTA))
    broadcast = release(told["broadcast_noise_multiplier"], count=20)
    assert epsilon([broadcast], DELTA) == pytest.approx(told["epsilon"], rel=1e-9)
    assert main(asked) == 0
    assert "uploads seen" in capsys.readouterr().out
    assert main([*asked[:-1], "21"]) == main([*asked, "--batch-size", "64"]) == 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("privacy.mode=client",), "uplink_exposures"),
        (("privacy.uplink_exposures=4",), "of 3 uploads"),
        (("privacy.uplink_exposures=0",), "uplink_exposures"),
        (("privacy.noise_schedule=[1.0, 1.0, 2.0]",), "least noise of a schedule"),
        (("compression.codec=fp16",), "no longer adds up"),
    ],
)
def test_exposures_that_protect_nothing_are_refused(settings, said):
    with pytest.raises(InputError, match=said):
        tiny(
            "privacy.mode=local-update",
            "privacy.uplink_exposures=2",
            *settings,
            paradigm="fedfuse",
        )
