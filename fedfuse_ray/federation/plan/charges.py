"""What training charges the ledger, release by release, as a plan has it."""

from __future__ import annotations

from collections.abc import Iterable

from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.privacy.accounting.ledger import PrivacyEvent


def training_events(plan: Plan, rounds: Iterable[int], factor: float = 1.0) -> list[PrivacyEvent]:
    """Return every release of some rounds once, round by round, in participants' order.

    Args:
        plan: The federation's plan; without privacy nothing is charged.
        rounds: From 1.
        factor: On the rounds' noise, where the schedule is adaptive.
    """
    terms = plan.privacy
    if terms is None:
        return []
    return [
        event
        for number in rounds
        for participant in plan.participants
        for event in terms.events(participant.name, plan.blocks_of(participant), number, factor)
    ]


def all_rounds(plan: Plan) -> range:
    """Return the numbers of all rounds that are planned."""
    return range(1, plan.experiment.training.rounds + 1)
