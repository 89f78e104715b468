"""An audit's entry in the privacy account: it looks at the records, and shows what it found.

An audit of a preset trains the model again, which is charged as a run of it; none counts as a
repetition of an earlier release, so each repeat is charged. Attacks on real records show figures
and images that have no noise. Canaries touch no record of anybody.
"""

from __future__ import annotations

from pathlib import Path

from fedfuse_ray.accounts.pending import AUDIT, entering
from fedfuse_ray.accounts.store import writing
from fedfuse_ray.accounts.terms import AccountTerms, resumed
from fedfuse_ray.accounts.totals import Total, total
from fedfuse_ray.audit.subject import Subject
from fedfuse_ray.federation.rounds.charging import planned

_ON_CANARIES = frozenset({"canaries"})


def enter(subject: Subject, attacks: tuple[str, ...], folder: Path, terms: AccountTerms) -> Total:
    """Enter an audit before it begins, and return the total for its records with it.

    Args:
        subject: What is audited.
        attacks: Which attacks.
        folder: Where the audit's results go.
        terms: The account; by default that of the run, or the one beside the results.

    Raises:
        InputError: The account is not as it was written.
    """
    if subject.folder is not None:
        terms = resumed(terms, subject.folder)
        events = []
    else:
        events = [event for event in planned(subject.plan) if event.round <= subject.rounds]
    protected = set(attacks) <= _ON_CANARIES
    coming = entering(subject.plan, subject.dataset, folder, events, AUDIT, protected=protected)
    with writing(terms.of(folder)) as writer:
        writer.add(coming.lines(writer.book))
        return total(writer.book, [coming.run.id], coming.guarantee)
