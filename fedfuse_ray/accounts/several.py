"""The total for the records of several runs, from their folders."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fedfuse_ray.accounts.store import read
from fedfuse_ray.accounts.terms import read_note
from fedfuse_ray.accounts.totals import Guarantee, Total, total
from fedfuse_ray.accounts.units import RECORD


def total_of_folders(account: Path, folders: Iterable[Path]) -> Total | None:
    """Return the total for the records of the runs of some folders; None where there is no run.

    Runs may differ in their delta and in their unit: the total is stated at the largest delta, and
    for a record as soon as one of them speaks of records.

    Args:
        account: The account that they entered; what is noted of another one is left out.
        folders: The runs' folders; those that were entered in no account are left out.
    """
    notes = [note for folder in folders if (note := read_note(folder)) is not None]
    notes = [note for note in notes if note.account == account]
    if not notes:
        return None
    told = [note.guarantee for note in notes]
    units = {each.unit for each in told}
    unit = units.pop() if len(units) == 1 else RECORD
    accountants = {each.accountant for each in told}
    accountant = accountants.pop() if len(accountants) == 1 else "pld"
    guarantee = Guarantee(unit, max(each.delta for each in told), accountant)
    return total(read(account), [note.run for note in notes], guarantee)
