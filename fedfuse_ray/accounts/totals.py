"""What all runs that an account knows tell of the same units together.

For each unit in question: which runs were entered for a unit that shares an image with it, and what
they charged. All of that composes, and the total is the maximum over the units.

Formal guarantees: the epsilon is that of (epsilon, delta)-DP for all releases of these runs
together, for one unit's contribution to each of them replaced by zero, against the adversary of
each run who has not the noise's root. It holds under adaptive composition, as a run may be chosen
by the results of those before. Runs that made the same releases count once: nothing new is told.
What was shown without noise is counted and bounds nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedfuse_ray.accounts.book import WITHDRAWN, Book, Run
from fedfuse_ray.accounts.charges import Charges, for_unit, largest_of
from fedfuse_ray.accounts.units import RECORD, Units, shared

Release = tuple[str, str]


@dataclass(frozen=True)
class Guarantee:
    """How a total is stated: of which unit, at which delta, by which accountant."""

    unit: str
    delta: float
    accountant: str = "pld"


@dataclass(frozen=True)
class Total:
    """What several runs tell of the same units.

    Attributes:
        epsilon: Over the private runs; None where there is none, or no finite one.
        guarantee: How it is stated.
        runs: How many private runs are in it; equal releases count once.
        unprotected: How many runs showed something of these units without noise.
    """

    epsilon: float | None
    guarantee: Guarantee
    runs: int
    unprotected: int

    @property
    def text(self) -> str:
        """The total on a line."""
        told = "no private run"
        if self.runs:
            epsilon = "no finite epsilon" if self.epsilon is None else f"epsilon {self.epsilon:.2f}"
            runs = f"{self.runs} private {'run' if self.runs == 1 else 'runs'}"
            told = f"{epsilon} over {runs}, at delta {self.guarantee.delta:g}"
        return f"{told}; {self.warning}" if self.warning else told

    @property
    def warning(self) -> str:
        """What no epsilon covers; "" where there is nothing."""
        if not self.unprotected:
            return ""
        runs = f"{self.unprotected} {'run' if self.unprotected == 1 else 'runs'}"
        how = "published without noise"
        if self.guarantee.unit != RECORD:
            how = f"gave the unit {self.guarantee.unit} no guarantee"
        return f"not private: {runs} {how}"


def as_json(found: Total) -> dict[str, float | int | str | None]:
    """Return a total as results hold it."""
    return {
        "epsilon": found.epsilon,
        "delta": found.guarantee.delta,
        "unit": found.guarantee.unit,
        "runs": found.runs,
        "unprotected_runs": found.unprotected,
    }


@dataclass(frozen=True)
class _Told:
    """What one run charged to the units of one participant; None where it bounds nothing."""

    run: Run
    charges: Charges | None


def total(book: Book, ids: Iterable[str], guarantee: Guarantee) -> Total:
    """Return the total for all units of some runs.

    Args:
        book: The account.
        ids: The runs whose units are in question; those that the account does not know are left
            out.
        guarantee: How the total is stated.
    """
    asked = [book.runs[id] for id in ids if id in book.runs]
    wanted = {g.units for run in asked for g in run.groups.values()}
    return total_of([book.units[name] for name in sorted(wanted)], book, guarantee)


def total_of(wanted: Sequence[Units], book: Book, guarantee: Guarantee) -> Total:
    """Return the total for some units, whether or not a run was entered for them."""
    told = _by_units(book, guarantee.unit)
    names = sorted(told)
    known = [book.units[name] for name in names]
    histories = {h for units in wanted for h in _histories(units, known)}
    epsilons, private, unprotected = [0.0], set[Release](), set[Release]()
    for history in histories:
        seen = [each for at in history for each in told[names[at]]]
        unprotected |= {t.run.release for t in seen if t.charges is None or not t.run.protected}
        counted = _once(seen)
        private |= set(counted)
        epsilons.append(_epsilon(counted, guarantee))
    largest = max(epsilons)
    epsilon = largest if private and math.isfinite(largest) else None
    return Total(epsilon, guarantee, len(private), len(unprotected))


def _by_units(book: Book, unit: str) -> dict[str, list[_Told]]:
    """Return what was charged to each set of units, in the order of the runs."""
    told: dict[str, list[_Told]] = {}
    for run in book.runs.values():
        if run.state == WITHDRAWN:
            continue
        for group in run.groups.values():
            charges = for_unit(group.charges, unit)
            told.setdefault(group.units, []).append(_Told(run, charges))
    return told


def _histories(units: Units, known: Sequence[Units]) -> set[tuple[int, ...]]:
    """Return which sets of units share an image with a unit: each combination that there is."""
    rows = np.unique(shared(units, known), axis=0)
    return {tuple(np.flatnonzero(row).tolist()) for row in rows}


def _once(seen: Collection[_Told]) -> dict[Release, list[Charges]]:
    """Return the charges of each release that is not another's.

    A run that holds a unit's image at several institutions may have charged it at any of them: the
    largest charges count, and all of those that can't be compared.
    """
    found: dict[Release, list[Charges]] = {}
    for each in seen:
        if each.charges:
            found.setdefault(each.run.release, []).append(each.charges)
    return {release: largest_of(several) for release, several in found.items()}


def _epsilon(counted: Mapping[Release, Sequence[Charges]], guarantee: Guarantee) -> float:
    if not counted:
        return 0.0
    from fedfuse_ray.privacy.accounting.epsilon import epsilon  # scipy, which few runs need here

    events = [event for several in counted.values() for own in several for event in own]
    return epsilon(events, guarantee.delta, guarantee.accountant)
