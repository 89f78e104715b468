"""Whether a finished run's ledger charges what its configuration and public sizes ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fedfuse_ray.errors import BudgetSpentError, FedfuseError
from fedfuse_ray.privacy.accounting.ledger import Ledger
from fedfuse_ray.privacy.accounting.matching import match
from fedfuse_ray.runs.expected import Expected, expected


def check_charges(folder: Path, ledger: Ledger, rounds: int, *, finished: bool) -> str:
    """Compare a run's ledger with what was to be charged.

    Args:
        folder: The run's folder.
        ledger: Its ledger.
        rounds: How many rounds its table has.
        finished: Whether it ended by itself; a search may have given it up.

    Returns:
        What was compared, and what could not be.

    Raises:
        FedfuseError: Names the institution, the round and both values of what differs first.
    """
    wanted = expected(folder)
    total = wanted.plan.experiment.training.rounds
    if rounds > total:
        raise FedfuseError(f"all institutions, round {rounds}: run, expected {total} rounds")
    charged = rounds + _unfinished(wanted, ledger, rounds, finished=finished)
    trained = [event for event in ledger if event.records is None]
    again = match(trained, wanted.events(range(1, charged + 1)), wanted.allowed)
    scores = [event for event in ledger if event.records is not None]
    match(scores, wanted.plan.scores.events(rounds) if finished else (), wanted.allowed.of_scores)
    if finished and rounds < total:
        _check_end(wanted, ledger, rounds)
    who = len(wanted.plan.participants)
    said = [f"{who} institutions, {rounds} rounds: charged as config.yaml and public sizes ask"]
    said += [f"round {n} {times} times, its noise drawn anew" for n, times in again.items()]
    return "; ".join([*said, *wanted.unchecked])


def _unfinished(wanted: Expected, ledger: Ledger, rounds: int, *, finished: bool) -> int:
    """Return 1 where a round after the last was charged and then not finished.

    A search gave the run up, or noise drawn anew would have exceeded the budget.
    """
    last = max((event.round for event in ledger if event.records is None), default=0)
    total = wanted.plan.experiment.training.rounds
    may = wanted.allowed.again or not finished
    return int(may and last == rounds + 1 <= total)


def _check_end(wanted: Expected, ledger: Ledger, rounds: int) -> None:
    """Check that a run with fewer rounds than were asked for had spent its budget.

    Raises:
        FedfuseError: Another round was within the budget.
    """
    from fedfuse_ray.privacy.accounting.budget import Account  # scipy

    config, next_round = wanted.plan.terms.config, rounds + 1
    if wanted.budget is None and wanted.allowed.more_noise:
        return  # an audit that is not here may have lowered it
    account = Account.open(config.delta, None, ledger, config.accountant)
    coming = wanted.events([next_round], wanted.allowed.least)
    try:
        replace(account, target_epsilon=wanted.budget).charge(coming)
    except BudgetSpentError:
        return
    names: Sequence[str] = sorted({event.institution for event in coming})
    raise FedfuseError(
        f"{', '.join(names)}, round {next_round}: not run at epsilon {account.epsilon:.6g}, "
        f"expected: {wanted.budget or 'any'} was granted"
    )
