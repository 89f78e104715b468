"""Charges: folded events, when some cost at least as much as others, what they tell of whom."""

from __future__ import annotations

import pytest

from fedfuse_ray.accounts import charges as charged
from fedfuse_ray.accounts.charges import covers, fold, for_unit, largest_of
from fedfuse_ray.privacy.accounting.epsilon import epsilon
from tests.support.privacy.accounts import DELTA, charges, event

SAMPLED = {"sampling_rate": 0.1}


def test_folding_changes_no_epsilon():
    events = [event(4.0), event(2.0), event(4.0, **SAMPLED), event(4.0), event(4.0, **SAMPLED)]
    folded = fold(events)
    assert [own.count for own in folded] == [2, 1, 2]
    assert epsilon(folded, DELTA) == epsilon(events, DELTA)


def test_charges_survive_the_file():
    discrete = charges()[0].__class__(1, "a", ("b",), "skellam", 3.0, rho=0.1, xi=0.2)
    for own in (charges(), charges(3.0, 7, **SAMPLED), fold([discrete]), ()):
        assert charged.from_json(charged.to_json(own)) == own


@pytest.mark.parametrize(
    ("bound", "spent", "held"),
    [
        (charges(4.0, 2), charges(4.0, 2), True),
        (charges(4.0, 2), charges(4.0, 3), False),
        (charges(2.0), charges(4.0, 4), True),  # 1/4 = 4/16
        (charges(2.0), charges(4.0, 5), False),
        (charges(4.0, 9), charges(4.0, 1, **SAMPLED), False),
        (charges(4.0, 2, **SAMPLED), charges(4.0, 1, **SAMPLED), True),
        (charges(4.0, 9, observer="uplink"), charges(4.0), False),
        (charges(4.0, 9, unit="institution"), charges(4.0), False),
        ((), charges(4.0), False),
        (charges(4.0), (), True),
    ],
)
def test_charges_cover_what_costs_no_more(bound, spent, held):
    assert covers(bound, spent) == held
    if held:
        assert epsilon(spent, DELTA) <= epsilon(bound, DELTA) * (1 + 1e-9)


def test_of_several_charges_the_largest_count_and_those_that_nothing_covers():
    small, large, other = charges(4.0), charges(1.0), charges(4.0, 3, **SAMPLED)
    assert largest_of([small, large, small]) == [large]
    assert largest_of([small, other]) == [small, other]
    assert largest_of([]) == []


def test_what_protects_an_institution_protects_a_record_half_as_well():
    of_record = for_unit(charges(4.0, 3, unit="institution", **SAMPLED), "record")
    assert of_record == charges(2.0, 3)
    of_patient = for_unit(charges(4.0, unit="institution"), "institution")
    assert of_patient == charges(4.0, unit="institution")


def test_what_protects_a_record_bounds_nothing_for_an_institution():
    assert for_unit(charges(4.0), "institution") is None
    mixed = (*charges(4.0), *charges(4.0, unit="institution"))
    assert for_unit(mixed, "institution") is None
    assert for_unit((), "institution") == ()
