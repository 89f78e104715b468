"""Which account a command keeps, and the budget that holds over all that the account knows."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedfuse_ray.accounts.store import FILE
from fedfuse_ray.accounts.totals import Guarantee
from fedfuse_ray.errors import InputError
from fedfuse_ray.files import write_json

NOTE = "privacy_account.json"
"""In a result folder: where its account is, and who it is there. It holds no key of a record."""


@dataclass(frozen=True)
class AccountTerms:
    """What a command asks of an account.

    Attributes:
        path: The account's file; None stands for the default, in the results' parent folder.
        budget: What the total of all runs on the same records may come to; None grants any.
        id: The account's own id, where the file has to be a certain one, as in a sweep whose trials
            run on several machines.
    """

    path: Path | None = None
    budget: float | None = None
    id: str = ""

    def __post_init__(self) -> None:
        if self.budget is not None and not 0.0 < self.budget < math.inf:
            raise InputError("--budget", self.budget, "use a positive epsilon, as 3")

    def of(self, results: Path) -> Path:
        """Return the account's file for results in a folder."""
        return absolute(self.path or results.absolute().parent / FILE)


@dataclass(frozen=True)
class Note:
    """Who a run is in its account.

    Attributes:
        account: The account's file.
        run: The run's id there.
        guarantee: How its total is stated.
        budget: Under which it began, or was last continued.
    """

    account: Path
    run: str
    guarantee: Guarantee
    budget: float | None = None

    def write(self, folder: Path) -> None:
        """Write it into a run's folder."""
        told = self.guarantee
        tree = {
            "account": told_from(folder, self.account),
            "run": self.run,
            "unit": told.unit,
            "delta": told.delta,
            "accountant": told.accountant,
            "budget": self.budget,
        }
        write_json(folder / NOTE, tree)


def read_note(folder: Path) -> Note | None:
    """Return who the run of a folder is in its account; None where it was entered in none.

    Raises:
        InputError: The file is broken.
    """
    tree = _tree(folder / NOTE)
    if tree is None:
        return None
    try:
        told = Guarantee(tree["unit"], tree["delta"], tree["accountant"])
        return Note(absolute(folder / tree["account"]), tree["run"], told, tree["budget"])
    except (KeyError, TypeError) as error:
        raise _broken(folder / NOTE, error) from None


def forget_note(folder: Path) -> None:
    """Remove what an older run of a folder was in its account; there it stays."""
    (folder / NOTE).unlink(missing_ok=True)


def resumed(terms: AccountTerms, folder: Path) -> AccountTerms:
    """Return the terms of a run that goes on: what is not given anew is as it was."""
    note = read_note(folder)
    if note is None:
        return terms
    budget = note.budget if terms.budget is None else terms.budget
    return AccountTerms(terms.path or note.account, budget, terms.id)


def absolute(path: Path) -> Path:
    """Return a path from the root, without steps up."""
    return Path(os.path.abspath(path))


def told_from(folder: Path, account: Path) -> str:
    """Return where an account is, as a folder's note tells it.

    An account above the folder is told from there, so that both may move together.
    """
    beside = absolute(folder).is_relative_to(account.parent)
    return os.path.relpath(account, absolute(folder)) if beside else str(account)


def _tree(path: Path) -> Mapping[str, Any] | None:
    if not path.is_file():
        return None
    try:
        tree: Mapping[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise _broken(path, error) from None
    return tree


def _broken(path: Path, error: Exception) -> InputError:
    return InputError(str(path), error, "the file is broken; remove it to enter the run anew")
