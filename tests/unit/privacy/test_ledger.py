from __future__ import annotations

import dataclasses
import json
import re

import pytest
from dp_accounting.pld import PLDAccountant

from fedfuse_ray.errors import InputError
from fedfuse_ray.privacy.accounting.chain import follow
from fedfuse_ray.privacy.accounting.epsilon import epsilon
from fedfuse_ray.privacy.accounting.ledger import (
    Ledger,
    PrivacyEvent,
    append_events,
    read_ledger,
    to_dp_event,
)

EVENTS = (
    PrivacyEvent(0, "med-01", ("encoder/ct", "fusion"), "gaussian", 4.0, 0.1, 3),
    PrivacyEvent(1, "med-02", ("head/medical",), "gaussian", 5.0),
    PrivacyEvent(2, "med-01", ("fusion",), "skellam", 6.0, rho=0.02, xi=0.0),
)


def test_the_ledger_survives_its_file(tmp_path):
    path = tmp_path / "privacy_ledger.jsonl"
    Ledger(EVENTS[:1]).write(path)
    chain = append_events(path, EVENTS[1:], [*follow(path.read_bytes())][-1].chain)
    assert read_ledger(path) == Ledger(EVENTS)
    assert [*follow(path.read_bytes())][-1].chain == chain
    assert chain.entries == len(path.read_text().splitlines()) == 3


def test_a_ledger_from_before_the_chain_is_still_read(tmp_path):
    path = tmp_path / "privacy_ledger.jsonl"
    Ledger(EVENTS).write(path)
    path.write_text(re.sub(', "chain": "[0-9a-f]*"', "", path.read_text()))
    assert read_ledger(path) == Ledger(EVENTS)


def test_the_ledger_and_its_events_never_change():
    ledger = Ledger(EVENTS[:1])
    longer = ledger.extend(EVENTS[1:])
    assert (len(ledger), len(longer)) == (1, 3)
    assert longer.institutions() == ("med-01", "med-02")
    assert longer.of("med-01") == (EVENTS[0], EVENTS[2])
    with pytest.raises(dataclasses.FrozenInstanceError):
        EVENTS[0].count = 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mechanism", "laplace"),
        ("noise_multiplier", 0.0),
        ("noise_multiplier", float("nan")),
        ("sampling_rate", 0.0),
        ("sampling_rate", 1.5),
        ("count", 0),
        ("unit", "pixel"),
        ("round", -1),
        ("rho", 0.1),
    ],
)
def test_an_event_that_no_accountant_knows_raises(field, value):
    with pytest.raises(InputError, match=field):
        dataclasses.replace(EVENTS[0], **{field: value})


def test_a_discrete_event_without_its_terms_raises():
    with pytest.raises(InputError, match="rho"):
        PrivacyEvent(0, "a", (), "skellam", 1.0)


@pytest.mark.parametrize(
    "line",
    ['{"round": 0', "[]", '{"round": 0}', '{"kind": "laplace"}'],
)
def test_a_broken_line_is_named(tmp_path, line):
    path = tmp_path / "ledger.jsonl"
    Ledger(EVENTS).write(path)
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=r"ledger\.jsonl:4"):
        read_ledger(path)


def test_an_unknown_mechanism_in_a_file_raises(tmp_path):
    path = tmp_path / "ledger.jsonl"
    Ledger(EVENTS[:1]).write(path)
    row = json.loads(path.read_text()) | {"mechanism": "cauchy"}
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match="cauchy"):
        read_ledger(path)


def test_an_outside_accountant_reads_the_same_epsilon():
    events = [
        PrivacyEvent(0, "a", ("fusion",), "gaussian", 4.0, 0.1, 30),
        PrivacyEvent(1, "a", ("fusion",), "gaussian", 6.0, 0.2, 20),
        PrivacyEvent(2, "a", ("fusion",), "gaussian", 8.0),
        PrivacyEvent(3, "a", ("fusion",), "gaussian", 4.0, 0.1, 30),
    ]
    event = to_dp_event(events)
    assert len(event.events) == 3
    outside = PLDAccountant().compose(event).get_epsilon(1e-5)
    assert epsilon(events, 1e-5) == pytest.approx(outside, rel=1e-3)
