"""The privacy account of a sweep, which its trials enter one by one, wherever they run.

The driver begins the account and writes down, in the sweep's folder, where it is and what its id
is: a trial on a machine that does not share the file would find another one, and fails. Each trial
enters before it releases anything, under the account's lock. The first trial that the budget
refuses writes down why, and from then on none is begun.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fedfuse_ray.accounts.pending import check_experiments, without_noise
from fedfuse_ray.accounts.several import total_of_folders
from fedfuse_ray.accounts.store import OPTION, writing
from fedfuse_ray.accounts.terms import NOTE, AccountTerms, absolute, told_from
from fedfuse_ray.accounts.totals import Total
from fedfuse_ray.config import Experiment
from fedfuse_ray.errors import InputError, OverBudgetError
from fedfuse_ray.files import write_json, write_text
from fedfuse_ray.report.reading import read_json

_REFUSED = "over_budget"


def begin(folder: Path, terms: AccountTerms) -> AccountTerms:
    """Begin the account of a sweep that is laid out, or that goes on; what is not given stays.

    Returns:
        The terms that its trials keep.

    Raises:
        InputError: It began with another account.
    """
    known = _known(folder)
    path = terms.of(folder) if known is None else known.of(folder)
    if terms.path is not None and absolute(terms.path) != path:
        raise InputError(OPTION, terms.path, f"it began with {path}; leave the option out")
    budget = terms.budget
    if budget is None and known is not None:
        budget = known.budget
    with writing(path) as writer:
        kept = AccountTerms(path, budget, writer.book.id)
    tree = {"account": told_from(folder, path), "id": kept.id, "budget": budget}
    write_json(folder / NOTE, tree)
    (folder / _REFUSED).unlink(missing_ok=True)
    return kept


def is_begun(folder: Path) -> bool:
    """Return whether a sweep's folder says which account is kept."""
    return (folder / NOTE).is_file()


def check_points(
    points: Sequence[tuple[Experiment, Path]], folder: Path, terms: AccountTerms
) -> None:
    """Refuse a sweep of which the budget does not allow the first trial, or that holds others.

    Args:
        points: Each trial's experiment and its folder to be.
        folder: The sweep's folder, which nothing has been written to.
        terms: What the command asks for.

    Raises:
        OverBudgetError: It does not, or a trial has no noise.
    """
    if terms.budget is None or not points:
        return
    for experiment, trial in points:
        if not experiment.privacy.enabled:
            raise without_noise(trial.name, terms.budget)
    check_experiments(points[:1], replace(terms, path=terms.of(folder)))


def forget(folder: Path) -> None:
    """Remove what an older sweep of a folder has written down; its entries stay."""
    for name in (NOTE, _REFUSED):
        (folder / name).unlink(missing_ok=True)


def terms_of(folder: Path) -> AccountTerms:
    """Return what the trials of a sweep keep; one that was not begun keeps the default.

    Raises:
        OverBudgetError: The budget has refused a trial already.
    """
    known = _known(folder)
    if known is not None and (why := refused(folder)):
        raise OverBudgetError("--budget", known.budget, why)
    return known or AccountTerms()


def refuse(folder: Path, error: OverBudgetError) -> None:
    """Write down why a trial was refused; the first one's reason stays."""
    if not refused(folder):
        write_text(folder / _REFUSED, error.remedy)


def refused(folder: Path) -> str:
    """Return why a trial was refused; "" where none was."""
    path = folder / _REFUSED
    return path.read_text() if path.is_file() else ""


def total_for(folder: Path) -> Total | None:
    """Return the total for the records of a sweep's trials; None where none has begun."""
    trials = sorted(path for path in (folder / "trials").iterdir() if path.is_dir())
    return total_of_folders((_known(folder) or AccountTerms()).of(folder), trials)


def total_line(folder: Path) -> str:
    """Return the total on a line; "" where no trial has begun."""
    found = total_for(folder)
    return f"Total for these records: {found.text}" if found is not None else ""


def _known(folder: Path) -> AccountTerms | None:
    """Return what the driver has written down; None where it has not."""
    path = folder / NOTE
    if not path.is_file():
        return None
    tree = read_json(path)
    return AccountTerms(absolute(folder / tree["account"]), tree["budget"], tree["id"])
