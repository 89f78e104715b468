"""Charging the ledger: before a round releases anything, and never twice for the same round."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.plan.charges import all_rounds, training_events
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.privacy.accounting.ledger import Ledger, PrivacyEvent

if TYPE_CHECKING:
    from fedfuse_ray.privacy.accounting.budget import Account


@dataclass
class Charging:
    """A run's account, round by round.

    A round that is run again after a crash is the identical release, down to its noise, so the
    ledger of a resumed run holds it once.

    Attributes:
        plan: The federation's plan.
        account: The account so far; None where nothing is private.
        rescored: Whether a later model than the one that the run goes on from was scored already.
    """

    plan: Plan
    account: Account | None
    rescored: bool = False

    @classmethod
    def open(cls, plan: Plan, ledger: Ledger | None = None, *, rescored: bool = False) -> Charging:
        """Open the account of a run, over an earlier ledger when it is resumed.

        Raises:
            BudgetSpentError: The earlier ledger already exceeds the budget.
            InputError: The audit that the run names has changed since it began.
        """
        if plan.privacy is None:
            return cls(plan, None)
        if ledger and plan.privacy.audit is not None:
            _check_audit(plan, ledger)
        from fedfuse_ray.privacy.accounting.budget import (
            Account,  # scipy: a second that others need not pay
        )

        config = plan.privacy.config
        account = Account.open(config.delta, config.target_epsilon, ledger, config.accountant)
        return cls(plan, account, rescored)

    def charge(self, round: int, factor: float = 1.0) -> list[PrivacyEvent]:
        """Charge what a round is going to release; returns it, in participants' order.

        Args:
            round: From 1.
            factor: On the round's noise, from the server where the schedule is adaptive.

        Raises:
            BudgetSpentError: It would exceed the budget, and must not happen.
        """
        events = training_events(self.plan, [round], factor)
        if self.account is not None:
            self.account = self.account.charge(events)
        return events

    def charge_scores(self, round: int) -> list[PrivacyEvent]:
        """Charge the final scores on institutions' own records; returns what is new of that.

        Whoever scores a model again, after a crash or a resume, repeats the release that is in the
        ledger already. Where the last round was run again with other noise, the model that was
        scored before is another one, and both releases are charged.

        Args:
            round: The last that was run.

        Raises:
            BudgetSpentError: It would exceed the budget.
        """
        events = self.plan.scores.events(round)
        if self.account is None or not events or events[0] in self.account.ledger.events:
            return []
        known = self.account.ledger.of(events[0].institution)
        if self.rescored and sum(event.round == round for event in known) > 1:
            events = [*events, *events]
        self.account = self.account.charge(events)
        return events

    @property
    def epsilon(self) -> float | None:
        """The largest epsilon so far; None where nothing is private."""
        return None if self.account is None else self.account.epsilon

    @property
    def epsilons(self) -> dict[str, float]:
        """Epsilon by institution."""
        return {} if self.account is None else dict(self.account.epsilons)


def planned(plan: Plan) -> list[PrivacyEvent]:
    """Return what a whole run is charged, its last scores among it.

    An adaptive schedule costs as much, or less.
    """
    return training_events(plan, all_rounds(plan)) + plan.scores.events(all_rounds(plan)[-1])


def _check_audit(plan: Plan, ledger: Ledger) -> None:
    """Refuse to go on with another budget than the run began with."""
    first = ledger.events[0]
    now = next(e for e in training_events(plan, [1]) if e.institution == first.institution)
    if not math.isclose(first.noise_multiplier, now.noise_multiplier, rel_tol=1e-6):
        raise InputError(
            "privacy.audit",
            plan.experiment.privacy.audit,
            f"now asks for a noise multiplier of {now.noise_multiplier:.6g}, the run began with "
            f"{first.noise_multiplier:.6g}; put the file back as it was",
        )
