"""What a run charges to each unit of an institution, folded: equal releases once, with a count.

A charge is a `PrivacyEvent` without its round, blocks and institution. Which releases there are is
the ledger's business: nothing here looks at more of an event than the accountant does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from fedfuse_ray.privacy.accounting.ledger import PrivacyEvent

Charges = tuple[PrivacyEvent, ...]
_NOT_KEPT = ("round", "institution", "blocks")
_FROM_SMALL_TO_LARGE = ("record", "patient", "institution")
_ROUNDING = 1e-9


def fold(events: Iterable[PrivacyEvent]) -> Charges:
    """Return events as charges, in order of first appearance.

    Whether a release was of records to train on or to validate on is not kept: a record may be one
    in this run and the other in the next, so a unit is charged for both.

    >>> event = PrivacyEvent(1, "a", ("head",), "gaussian", 2.0)
    >>> [(c.noise_multiplier, c.count) for c in fold([event, event])]
    [(2.0, 2)]
    """
    counts: dict[PrivacyEvent, int] = {}
    for event in events:
        key = replace(event, round=0, institution="", blocks=(), records=None, count=1)
        counts[key] = counts.get(key, 0) + event.count
    return tuple(replace(key, count=count) for key, count in counts.items())


def by_institution(events: Iterable[PrivacyEvent]) -> dict[str, Charges]:
    """Return each institution's charges."""
    apart: dict[str, list[PrivacyEvent]] = {}
    for event in events:
        apart.setdefault(event.institution, []).append(event)
    return {name: fold(own) for name, own in apart.items()}


def covers(bound: Charges, spent: Charges) -> bool:
    """Return whether some charges cost at least as much as others, at any delta.

    Formal guarantees: where it holds, the composition of `bound` dominates that of `spent` for each
    observer: full-batch Gaussian releases compose by adding up 1/sigma^2; of all else there are at
    least as many, release by release.
    """
    most, least = _weights(bound), _weights(spent)
    return all(most.get(key, 0.0) >= value * (1.0 - _ROUNDING) for key, value in least.items())


def _weights(charges: Charges) -> dict[PrivacyEvent, float]:
    """Return how much there is of each kind of release that only adds up with its like."""
    weights: dict[PrivacyEvent, float] = {}
    for charge in charges:
        if charge.mechanism == "gaussian" and charge.sampling_rate == 1.0:
            key, weight = replace(charge, noise_multiplier=1.0), charge.noise_multiplier**-2
        else:
            key, weight = charge, 1.0
        key = replace(key, count=1)
        weights[key] = weights.get(key, 0.0) + weight * charge.count
    return weights


def largest_of(several: Sequence[Charges]) -> list[Charges]:
    """Return the charges that no others of them cover; of equal ones the first."""
    kept: list[Charges] = []
    for charges in several:
        if not any(covers(other, charges) for other in kept):
            kept = [other for other in kept if not covers(charges, other)] + [charges]
    return kept


def for_unit(charges: Charges, unit: str) -> Charges | None:
    """Return what charges tell of a unit; None where they bound nothing for it.

    A release that protects a larger unit protects a smaller one inside it, though less: changing a
    record changes its institution's clipped contribution, by at most 2 C where taking the whole
    contribution away changes it by C. So it is a Gaussian release of half the multiplier; whether
    the larger unit was sampled is taken as known. A release that protects a smaller unit bounds
    nothing for a larger one, which may be any number of them.
    """
    converted = [_for_unit(charge, unit) for charge in charges]
    known = tuple(charge for charge in converted if charge is not None)
    return fold(known) if len(known) == len(charges) else None


def _for_unit(charge: PrivacyEvent, unit: str) -> PrivacyEvent | None:
    if charge.unit == unit:
        return charge
    known = unit in _FROM_SMALL_TO_LARGE and charge.unit in _FROM_SMALL_TO_LARGE
    if not known or charge.mechanism != "gaussian" or not _is_larger(charge.unit, unit):
        return None
    halved = charge.noise_multiplier / 2.0
    return replace(charge, noise_multiplier=halved, sampling_rate=1.0, unit=unit)


def _is_larger(one: str, other: str) -> bool:
    return _FROM_SMALL_TO_LARGE.index(one) > _FROM_SMALL_TO_LARGE.index(other)


def to_json(charges: Charges) -> list[dict[str, Any]]:
    """Return charges as an entry of the account holds them."""
    rows = [asdict(charge) for charge in charges]
    return [{n: v for n, v in row.items() if v is not None and n not in _NOT_KEPT} for row in rows]


def from_json(rows: Sequence[Mapping[str, Any]]) -> Charges:
    """Return the charges of an entry.

    Raises:
        InputError: A charge that no accountant could interpret.
        TypeError: It is none.
    """
    return tuple(PrivacyEvent(round=0, institution="", blocks=(), **row) for row in rows)
