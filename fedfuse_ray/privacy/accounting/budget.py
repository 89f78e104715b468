"""The running account of a federation: charge releases, know every epsilon, stop in time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from fedfuse_ray.errors import BudgetSpentError
from fedfuse_ray.privacy.accounting.epsilon import Observed, grouped, largest, observe, worst
from fedfuse_ray.privacy.accounting.ledger import Ledger, PrivacyEvent


@dataclass(frozen=True, slots=True)
class Account:
    """A ledger with its epsilons kept up to date; `charge` returns the next account.

    Each charge recomputes only the institutions that it touches, from folded counts, so its cost
    does not grow with the number of rounds.

    Args:
        delta: The guarantee's delta.
        target_epsilon: The budget of every institution; null grants any.
        ledger: All events so far.
        epsilons: Epsilon by institution.
        accountant: `pld` or `rdp`.
    """

    delta: float
    target_epsilon: float | None = None
    ledger: Ledger = field(default_factory=Ledger)
    epsilons: Mapping[str, float] = field(default_factory=dict)
    compositions: Mapping[str, Observed] = field(default_factory=dict, repr=False)
    accountant: str = "pld"

    @classmethod
    def open(
        cls,
        delta: float,
        target_epsilon: float | None = None,
        ledger: Ledger | None = None,
        accountant: str = "pld",
    ) -> Account:
        """Open an account, over an earlier ledger when a run is resumed.

        Raises:
            BudgetSpentError: The earlier ledger already exceeds the budget.
        """
        return cls(delta, target_epsilon, accountant=accountant).charge(ledger or ())

    @property
    def epsilon(self) -> float:
        """The federation's epsilon: the maximum over institutions."""
        return largest(self.epsilons)

    def charge(self, events: Iterable[PrivacyEvent]) -> Account:
        """Return the account after `events`. Charge before releasing anything.

        Raises:
            BudgetSpentError: An institution would exceed the budget; this account is unchanged and
                the release must not happen.
        """
        events = tuple(events)
        compositions = {**self.compositions, **self._composed(events)}
        changed = {event.institution for event in events}
        epsilons = {
            **self.epsilons,
            **{n: worst(compositions[n], self.delta, self.accountant) for n in sorted(changed)},
        }
        self._check(epsilons, changed)
        return replace(
            self, ledger=self.ledger.extend(events), epsilons=epsilons, compositions=compositions
        )

    def _composed(self, events: tuple[PrivacyEvent, ...]) -> dict[str, Observed]:
        by_name = grouped(events, lambda event: event.institution)
        return {name: observe(own, self.compositions.get(name)) for name, own in by_name.items()}

    def _check(self, epsilons: Mapping[str, float], changed: Iterable[str]) -> None:
        if self.target_epsilon is None:
            return
        worst = max(sorted(changed), key=lambda name: epsilons[name], default=None)
        # Bisection and bookkeeping may differ in the last bits; a step of training does not.
        if worst is not None and epsilons[worst] > self.target_epsilon * (1.0 + 1e-9):
            raise BudgetSpentError(
                f"privacy.target_epsilon: the next release would bring {worst} to epsilon "
                f"{epsilons[worst]:.4f} at delta {self.delta:g}; {self.target_epsilon:g} was "
                f"granted and {self.epsilons.get(worst, 0.0):.4f} is spent. Grant more, add noise, "
                "or train fewer rounds"
            )
