"""What a guarantee for records leaves of a patient with several of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from fedfuse_ray.data.dataset import Dataset
from fedfuse_ray.federation.plan.charges import all_rounds, training_events
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.privacy.accounting.ledger import PrivacyEvent

Held = tuple[tuple[str, int], ...]
"""How many records a patient has at each participant."""


def patient_warning(
    plan: Plan, dataset: Dataset, events: Iterable[PrivacyEvent] | None = None
) -> str | None:
    """Return what the releases tell of the patient who loses most, in a line.

    Nothing where a patient is the unit, where nobody knows the patients, or where each has one
    record. It names no patient: it stands in results that are handed on.

    Args:
        plan: The federation's plan.
        dataset: Its data.
        events: What was released; by default what is planned.
    """
    terms, known = plan.privacy, any(i.patients for i in dataset.index.institutions.values())
    if terms is None or terms.config.protected_unit != "record" or not known:
        return None
    holdings = _largest(_holdings(plan, dataset))
    if all(len(held) == 1 and held[0][1] == 1 for held in holdings):
        return None
    from fedfuse_ray.privacy.accounting.groups import group_epsilon  # scipy

    releases: dict[str, list[PrivacyEvent]] = {}
    for event in training_events(plan, all_rounds(plan)) if events is None else events:
        releases.setdefault(event.institution, []).append(event)
    delta, apart = terms.config.delta, terms.config.institutions_per_unit

    def lost(held: Held) -> float:
        if terms.distributed:  # one joint sum, which each of the records moves
            total = sum(count for _, count in held)
            return group_epsilon([(releases[held[0][0]], total / apart)], delta)
        return group_epsilon([(releases[name], count) for name, count in held], delta)

    if terms.distributed:
        holdings = [max(holdings, key=lambda held: sum(count for _, count in held))]
    worst = max(holdings, key=lost)
    where = f" at {len(worst)} institutions" if len(worst) > 1 else ""
    return (
        f"a patient has up to {sum(count for _, count in worst)} records{where}: epsilon for a "
        f"patient is {lost(worst):.2f}, since privacy.unit=record; privacy.unit=patient protects "
        "all records of a patient as one"
    )


def _holdings(plan: Plan, dataset: Dataset) -> set[Held]:
    """Return which holdings patients have, without the patients."""
    counts: dict[str, Counter[str]] = {}
    for participant in plan.participants:
        for member in participant.members:
            for patient in dataset.patients(member):
                counts.setdefault(patient, Counter())[participant.name] += 1
    return {tuple(sorted(own.items())) for own in counts.values()}


def _largest(holdings: set[Held]) -> list[Held]:
    """Return those that no other one covers, in a fixed order, so that ties end alike."""
    found = [dict(held) for held in holdings]

    def covered(one: dict[str, int]) -> bool:
        return any(
            other != one and all(other.get(name, 0) >= count for name, count in one.items())
            for other in found
        )

    return sorted(tuple(sorted(held.items())) for held in found if not covered(held))
