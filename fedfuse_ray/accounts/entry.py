"""A run's entry in its account: made before its first release, never too small, settled at its end.

An entry begins as the most that the run may charge. Before a release that this does not cover, as a
round whose noise is drawn anew, more is entered. When the run has ended, the entry becomes what its
ledger says. A run that was interrupted stays at the most until it is continued and ends.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fedfuse_ray.accounts import charges as charged
from fedfuse_ray.accounts.book import FINISHED, STOPPED, WITHDRAWN, more_line, settled_line
from fedfuse_ray.accounts.charges import Charges, by_institution, covers, fold
from fedfuse_ray.accounts.pending import (
    ID_BYTES,
    Pending,
    check_budget,
    check_experiments,
    exceeds,
    pending,
)
from fedfuse_ray.accounts.store import OPTION, Writer, writing
from fedfuse_ray.accounts.terms import AccountTerms, Note, read_note, resumed
from fedfuse_ray.accounts.totals import Total, total
from fedfuse_ray.config import Experiment
from fedfuse_ray.data.dataset import Dataset
from fedfuse_ray.errors import BudgetSpentError, FedfuseError
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.privacy.accounting.ledger import Ledger, PrivacyEvent


class Entry:
    """A run's place in an account, while it goes on.

    Args:
        coming: The run and its units.
        folder: The run's folder; who it is in its account is noted there.
        terms: Which account, and the budget of the total.
        resume: The run goes on, so it has released something.

    Raises:
        OverBudgetError: It would exceed the budget; nothing was entered.
        InputError: The account is not as it was written.
    """

    def __init__(
        self, coming: Pending, folder: Path, terms: AccountTerms, *, resume: bool = False
    ) -> None:
        self._coming, self._folder, self._budget = coming, folder, terms.budget
        self._path = terms.of(folder)
        self._bound = _charges_of(coming)
        self._spent: dict[str, Charges] = {}
        self._begun = self._ended = False
        known = read_note(folder)
        with writing(self._path) as writer:
            _check_id(writer, self._path, terms)
            found = resume and self._find(writer, known)
            self._untouched = not resume
            if not self._ended:
                self._check(writer)
            # Noted first: whoever goes on after a crash in between enters the run itself.
            self._note()
            if not found:
                writer.add(self._coming.lines(writer.book))

    @property
    def id(self) -> str:
        """What the run is known by in the account."""
        return self._coming.run.id

    def continues(self, charged: Iterable[PrivacyEvent]) -> None:
        """Go on after what a resumed run has charged, up to its checkpoint."""
        self._spent = by_institution(charged)

    def charge(self, events: Sequence[PrivacyEvent]) -> None:
        """See to it that the account covers a release, before it happens.

        Raises:
            BudgetSpentError: It would exceed the budget; the release must not happen.
        """
        if self._ended:
            self._again()
        added, spent = by_institution(events), dict(self._spent)
        for name, own in added.items():
            spent[name] = fold((*spent.get(name, ()), *own))
        more = {n: own for n, own in added.items() if not covers(self._bound.get(n, ()), spent[n])}
        if more:
            self._enter_more(more)
        self._spent, self._begun = spent, True

    def settle(self, charges: Iterable[PrivacyEvent], releases: str) -> Total:
        """Enter what a finished run has charged, and return the total for its units.

        Args:
            charges: All that its ledger holds.
            releases: Digest of all that it released; "" where it is not known in full.
        """
        actual = by_institution(charges)
        with writing(self._path) as writer:
            run = writer.book.runs[self.id]
            if run.state and self._begun and not (releases and run.releases == releases):
                # A copy of the run's folder was continued, too, and came to something else.
                self._renew()
                writer.add(self._coming.lines(writer.book))
            if not writer.book.runs[self.id].state:
                writer.add([settled_line(self.id, FINISHED, actual, releases)])
            book = writer.book
        return total(book, [self.id], self._coming.guarantee)

    def withdraw(self) -> None:
        """Take the charges back of a run that failed before it released anything."""
        if self._untouched and not self._begun:
            with writing(self._path) as writer:
                writer.add([settled_line(self.id, WITHDRAWN, {}, "")])

    def _find(self, writer: Writer, known: Note | None) -> bool:
        """Become the entry that a resumed run made before, if there is one of the same units."""
        run = writer.book.runs.get(known.run) if known is not None else None
        own = self._coming.run
        if run is None or (run.identity, run.units) != (own.identity, own.units):
            return False
        if run.state == WITHDRAWN:
            return False
        self._rename(run.id)
        self._ended = bool(run.state)
        self._bound = {name: group.charges for name, group in run.groups.items()}
        return True

    def _again(self) -> None:
        """Enter a run that had ended, and whose rounds are run again, as another one."""
        self._renew()
        with writing(self._path) as writer:
            self._check(writer)
            writer.add(self._coming.lines(writer.book))
        self._note()

    def _check(self, writer: Writer) -> None:
        if self._budget is not None:
            check_budget(writer.book, [self._coming], self._budget)

    def _renew(self) -> None:
        self._rename(secrets.token_hex(ID_BYTES))
        self._bound, self._ended = _charges_of(self._coming), False

    def _rename(self, id: str) -> None:
        self._coming = replace(self._coming, run=replace(self._coming.run, id=id))

    def _enter_more(self, more: Mapping[str, Charges]) -> None:
        line = more_line(self.id, more)
        with writing(self._path) as writer:
            after = total(writer.book.after([line]), [self.id], self._coming.guarantee)
            if self._budget is not None and exceeds(after, self._budget):
                raise BudgetSpentError(
                    f"--budget {self._budget:g}: the next release would bring the total for these "
                    f"records to {after.text}"
                )
            writer.add([line])
        for name, own in more.items():
            self._bound[name] = fold((*self._bound.get(name, ()), *own))

    def _note(self) -> None:
        Note(self._path, self.id, self._coming.guarantee, self._budget).write(self._folder)


def admitted(
    experiment: Experiment, folder: Path, terms: AccountTerms, *, resume: bool
) -> AccountTerms:
    """Return which account a run keeps, before anything of the run is written.

    Raises:
        OverBudgetError: A fresh run would exceed the budget.
    """
    if resume:
        return resumed(terms, folder)
    check_experiments([(experiment, folder)], terms)
    return terms


def enter(
    plan: Plan, dataset: Dataset, folder: Path, terms: AccountTerms, *, resume: bool
) -> Entry:
    """Enter a run before it releases anything, or find its entry where it goes on.

    Raises:
        OverBudgetError: It would exceed the budget; nothing was entered.
        InputError: The account is not as it was written.
    """
    return Entry(pending(plan, dataset, folder), folder, terms, resume=resume)


def settle_stopped(folder: Path, ledger: Ledger) -> None:
    """Enter what a run has charged that a search gave up."""
    note = read_note(folder)
    if note is None:
        return
    with writing(note.account) as writer:
        run = writer.book.runs.get(note.run)
        if run is not None and not run.state:
            writer.add([settled_line(run.id, STOPPED, by_institution(ledger), "")])


def digest_of(weights_sha256: str, ledger: Iterable[PrivacyEvent]) -> str:
    """Return the digest of all that a run has released, for a run whose sums hold all messages.

    Each round's noise is named by the weights that came in and by the messages themselves, so two
    runs that differ in any message draw independent noise from then on, and end with other weights.
    So equal last weights, under one identity and the same charges, are the same releases; a
    message that was sent and is in no sum would not show.
    """
    charges = {name: charged.to_json(own) for name, own in by_institution(ledger).items()}
    text = json.dumps([weights_sha256, charges], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _charges_of(coming: Pending) -> dict[str, Charges]:
    return {name: group.charges for name, group in coming.run.groups.items()}


def _check_id(writer: Writer, path: Path, terms: AccountTerms) -> None:
    """Refuse an account that is not the one that was meant.

    Raises:
        FedfuseError: It is another one, as on a machine that does not share the file.
    """
    if terms.id and writer.book.id != terms.id:
        raise FedfuseError(
            f"{path} is not the account that was begun: {OPTION} has to be on storage that all "
            "nodes share"
        )
