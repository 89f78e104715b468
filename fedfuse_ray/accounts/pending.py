"""What a run is about to enter into the account: its units, and the most that it will charge."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedfuse_ray.accounts.book import Book, Group, Run, units_line
from fedfuse_ray.accounts.charges import by_institution
from fedfuse_ray.accounts.store import read
from fedfuse_ray.accounts.terms import AccountTerms
from fedfuse_ray.accounts.totals import Guarantee, Total, total, total_of
from fedfuse_ray.accounts.units import RECORD, Units, units_of
from fedfuse_ray.config import Experiment
from fedfuse_ray.data.dataset import Dataset
from fedfuse_ray.errors import OverBudgetError
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.plan.prepared import prepared
from fedfuse_ray.federation.rounds.charging import planned
from fedfuse_ray.privacy.accounting.ledger import PrivacyEvent

RUN, AUDIT = "run", "audit"
ID_BYTES = 16
_OPTION = "--budget"
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Pending:
    """A run that is not yet in the account, its units, and how its total is stated."""

    run: Run
    units: tuple[Units, ...]
    guarantee: Guarantee

    def lines(self, book: Book) -> list[str]:
        """Return the entries that a book lacks."""
        fresh = {own.id: own for own in self.units if own.id not in book.units}
        return [*(units_line(own) for own in fresh.values()), self.run.line()]


def pending(plan: Plan, dataset: Dataset, results: Path) -> Pending:
    """Return what a run of a plan enters: all of its rounds as the plan charges them.

    Args:
        plan: The plan; its schedule of noise may turn out otherwise, but costs no more.
        dataset: Its specimens.
        results: The run's folder.
    """
    return entering(plan, dataset, results, planned(plan))


def entering(
    plan: Plan,
    dataset: Dataset,
    results: Path,
    events: Iterable[PrivacyEvent],
    what: str = RUN,
    *,
    protected: bool | None = None,
) -> Pending:
    """Return what a run or an audit enters.

    Args:
        plan: Its plan.
        dataset: The specimens.
        results: Where its results go.
        events: The most that it will charge.
        what: `run` or `audit`.
        protected: Whether all that it shows has noise; by default whether the plan is private.
    """
    unit = plan.privacy.config.protected_unit if plan.privacy is not None else RECORD
    charges = by_institution(events)
    units = {p.name: units_of(dataset, p.members, unit) for p in plan.participants}
    groups = {name: Group(own.id, charges.get(name, ())) for name, own in units.items()}
    privacy = plan.experiment.privacy
    # Only noise that follows from the configuration can be the same noise in another run.
    derived = what == RUN and privacy.randomness == "derived"
    run = Run(
        id=secrets.token_hex(ID_BYTES),
        what=what,
        results=str(results.absolute()),
        unit=unit,
        protected=plan.privacy is not None if protected is None else protected,
        groups=groups,
        identity=plan.randomness.context.hex() if derived else "",
    )
    told = Guarantee(unit, privacy.delta, privacy.accountant)
    return Pending(run, tuple(units.values()), told)


def check_budget(book: Book, coming: Sequence[Pending], budget: float) -> None:
    """Refuse runs that would bring the total for their records above a budget.

    A run that equals an earlier one is counted all the same: whether it will make the same releases
    is known when it has ended.

    Raises:
        OverBudgetError: They would, or one of them has no noise.
    """
    for each in coming:
        if not each.run.protected:
            raise without_noise(Path(each.run.results).name, budget)
    fresh = [each for each in coming if each.run.id not in book.runs]
    later = book.after(line for each in fresh for line in each.lines(book))
    for each in coming:
        after = total(later, [each.run.id], each.guarantee)
        if exceeds(after, budget):
            raise OverBudgetError(_OPTION, budget, _remedy(book, each, after))


def without_noise(name: str, budget: float) -> OverBudgetError:
    """Return why a run without noise is refused wherever there is a budget."""
    remedy = f"{name} publishes without noise, which no budget allows; leave it out"
    return OverBudgetError(_OPTION, budget, remedy)


def exceeds(after: Total, budget: float) -> bool:
    """Return whether a total is above a budget, by more than rounding."""
    return after.epsilon is None or after.epsilon > budget * (1.0 + _ROUNDING)


def _remedy(book: Book, coming: Pending, after: Total) -> str:
    before = total_of(coming.units, book, coming.guarantee)
    to = "no finite epsilon" if after.epsilon is None else f"epsilon {after.epsilon:.4g}"
    spent = f"{before.epsilon:.4g}" if before.epsilon is not None else "none"
    return (
        f"{Path(coming.run.results).name} would bring the same records to {to}; {spent} is spent "
        f"over {before.runs} earlier runs. Grant more, add noise, or train fewer rounds"
    )


def check_experiments(experiments: Sequence[tuple[Experiment, Path]], terms: AccountTerms) -> None:
    """Refuse experiments that together would exceed the budget, before anything is written.

    Args:
        experiments: Each with the folder that its results will go to.
        terms: The account, with the path given, and the budget; without one all are fine.

    Raises:
        OverBudgetError: They would.
    """
    if terms.budget is None or not experiments:
        return
    coming = [pending(*prepared(experiment), folder) for experiment, folder in experiments]
    check_budget(read(terms.of(experiments[0][1])), coming, terms.budget)
