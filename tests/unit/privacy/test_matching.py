"""What a ledger may differ in from what was to be charged, and what it may not."""

from __future__ import annotations

import dataclasses

import pytest

from fedfuse_ray.errors import FedfuseError
from fedfuse_ray.privacy.accounting.ledger import PrivacyEvent
from fedfuse_ray.privacy.accounting.matching import Latitude, match

NAMES = ("med-01", "med-02")
EVENT = PrivacyEvent(1, "med-01", ("fusion", "head/medical"), "gaussian", 2.0, 0.5, 3)
EXPECTED = [
    dataclasses.replace(EVENT, round=n, institution=who) for n in (1, 2, 3) for who in NAMES
]
ADAPTIVE = Latitude(again=True, spread=1.5, rounds=3)


def changed(index, **fields):
    events = list(EXPECTED)
    events[index] = dataclasses.replace(events[index], **fields)
    return events


def scaled(*factors):
    return [
        dataclasses.replace(e, noise_multiplier=e.noise_multiplier * factors[e.round - 1])
        for e in EXPECTED
    ]


def test_what_was_expected_passes_in_any_order():
    assert match(EXPECTED, EXPECTED, Latitude()) == {}
    assert match(EXPECTED[::-1], EXPECTED, Latitude()) == {}
    assert match([], [], ADAPTIVE) == {}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"noise_multiplier": 2.1}, "noise_multiplier is 2.1, expected 2"),
        ({"noise_multiplier": 1.99999}, "noise_multiplier is 1.99999, expected 2"),
        ({"sampling_rate": 0.25}, "sampling_rate is 0.25, expected 0.5"),
        ({"count": 2}, "count is 2, expected 3"),
        ({"unit": "institution"}, "unit is institution, expected record"),
        ({"blocks": ("fusion",)}, r"blocks is \('fusion',\), expected \('fusion', 'head/medical'"),
        (
            {"mechanism": "skellam", "rho": 0.1, "xi": 0.0},
            "mechanism is skellam, expected gaussian",
        ),
        ({"observer": "uplink"}, "nothing is charged, a gaussian release of noise_multiplier 2,"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
@pytest.mark.parametrize("allowed", [Latitude(), Latitude(again=True)])
def test_a_release_that_differs_is_named_with_both_values(fields, said, allowed):
    with pytest.raises(FedfuseError, match=f"^med-02, round 2: {said}"):
        match(changed(3, **fields), EXPECTED, allowed)


def test_a_number_that_is_calibrated_again_may_differ_in_its_last_digits():
    assert match(changed(3, noise_multiplier=2.0 + 1e-7), EXPECTED, Latitude()) == {}


@pytest.mark.parametrize("allowed", [Latitude(), ADAPTIVE, Latitude(more_noise=True)])
def test_what_is_missing_or_too_much_is_named(allowed):
    with pytest.raises(
        FedfuseError, match=r"^med-02, round 1: nothing is charged, .*_multiplier 2,"
    ):
        match([e for e in EXPECTED if e.institution == "med-01"], EXPECTED, allowed)
    with pytest.raises(FedfuseError, match=r"^med-01, round 3: nothing is charged"):
        match(EXPECTED[:4], EXPECTED, allowed)
    for extra in ({"round": 4}, {"institution": "med-03"}):
        with pytest.raises(FedfuseError, match="is charged, nothing expected"):
            match([*EXPECTED, dataclasses.replace(EVENT, **extra)], EXPECTED, allowed)


def test_a_round_is_charged_again_for_everybody_and_only_where_noise_is_drawn_anew():
    twice = [*EXPECTED, *EXPECTED[2:4]]
    assert match(twice, EXPECTED, Latitude(again=True)) == {2: 2}
    with pytest.raises(FedfuseError, match=r"^med-01, round 2: charged 2 times, expected once"):
        match(twice, EXPECTED, Latitude())
    with pytest.raises(FedfuseError, match=r"^med-02, round 2: charged 1 times, med-01 2 times"):
        match(twice[:-1], EXPECTED, Latitude(again=True))
    cheaper = [*EXPECTED, *(dataclasses.replace(e, count=1) for e in EXPECTED[2:4])]
    with pytest.raises(FedfuseError, match=r"^med-01, round 2: count is 1, expected 3"):
        match(cheaper, EXPECTED, Latitude(again=True))


def test_an_adaptive_schedule_stays_within_its_spread_and_its_cost():
    assert match(scaled(1.5, 1.0, 0.85), EXPECTED, ADAPTIVE) == {}
    with pytest.raises(
        FedfuseError, match=r"^med-01, round 2: noise_multiplier is 1, expected 1.33"
    ):
        match(scaled(1.5, 0.5, 1.5), EXPECTED, ADAPTIVE)
    with pytest.raises(FedfuseError, match=r"round 3: the adaptive schedule has cost 3\.68"):
        match(scaled(1.0, 1.0, 0.77), EXPECTED, ADAPTIVE)
    with pytest.raises(FedfuseError, match=r"^med-02, round 2: the factor on its noise is 1.2"):
        match(changed(3, noise_multiplier=2.4), EXPECTED, ADAPTIVE)


def test_without_its_audit_a_run_may_have_more_noise_and_never_less():
    allowed = Latitude(more_noise=True)
    assert match(scaled(1.2, 1.2, 1.2), EXPECTED, allowed) == {}
    with pytest.raises(FedfuseError, match=r"^med-01, round 1: noise_multiplier is 1.8"):
        match(scaled(0.9, 1.0, 1.0), EXPECTED, allowed)


def test_what_is_unknown_is_not_compared_and_nothing_else_is_let_through():
    allowed = Latitude(unknown=frozenset({"noise_multiplier"}))
    assert match(changed(3, noise_multiplier=0.1), EXPECTED, allowed) == {}
    with pytest.raises(FedfuseError, match="count is 1"):
        match(changed(3, noise_multiplier=0.1, count=1), EXPECTED, allowed)


def test_each_observer_is_charged():
    seen = [dataclasses.replace(EVENT, observer=o) for o in ("uplink", "downlink")]
    assert match(seen, seen, Latitude()) == {}
    with pytest.raises(FedfuseError, match=r"^med-01, round 1: nothing is charged, .* downlink"):
        match(seen[:1], seen, Latitude())
    with pytest.raises(FedfuseError, match=r"^med-01, round 1: .* the downlink is charged"):
        match(seen, seen[:1], Latitude())
    with pytest.raises(FedfuseError, match=r"^med-01, round 1: charged 2 times on the downlink"):
        match([*seen, seen[1]], seen, Latitude(again=True))
