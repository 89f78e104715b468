"""What an institution checks before it believes a broadcast: the terms that were agreed on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from fedfuse_ray.errors import BudgetSpentError, ProtocolError
from fedfuse_ray.federation.checkpoints.promise import Memory
from fedfuse_ray.federation.modes.exchange import Turn
from fedfuse_ray.federation.modes.grid import WIDEST_MODULUS
from fedfuse_ray.federation.plan.terms import MOST_GROWTH

if TYPE_CHECKING:  # torch: the server does without
    from fedfuse_ray.federation.institution.institution import Institution

_SLACK = 1.0 + 1e-5
"""Factors are sent as float32."""


def check_broadcast(institution: Institution, turn: Turn) -> float:
    """Check that the server's terms of a round are ones that the plan allows.

    Whatever the server may choose, it can't have institutions add less noise than was agreed: every
    factor lies within the configured spread, and all of them together cost no more than a constant
    schedule.

    Returns:
        What the institution's noise has cost with this round, under an adaptive schedule; else 0.

    Raises:
        ProtocolError: The broadcast's sizes, clipping norm, noise or bits were not agreed on.
    """
    terms, released, plan = institution.plan.terms, turn.broadcast.released, institution.plan
    if turn.broadcast.sizes != institution.sizes:
        raise ProtocolError("the server's blocks have other sizes than the plan's")
    if (released.clip_norm is not None) != terms.adaptive:
        raise ProtocolError("a clipping norm is broadcast if, and only if, it is adaptive")
    if released.clip_norm is not None:
        ratio = released.clip_norm / terms.config.clip_norm
        if not MOST_GROWTH * ratio * _SLACK >= 1.0 or not ratio <= MOST_GROWTH * _SLACK:
            raise ProtocolError(f"a clipping norm of {released.clip_norm:g} was not agreed on")
    if any(not 2 <= s.bits <= WIDEST_MODULUS for s in released.settings.values()):
        raise ProtocolError("the server asks for words of bits that do not exist")
    if released.settings and not plan.coding.adapts(secure=True):
        raise ProtocolError("the server chose bits, but no policy was agreed on")
    if (released.noise_factor is not None) != terms.spends_adaptively:
        raise ProtocolError("a factor on the noise is broadcast if, and only if, it is adaptive")
    if released.noise_factor is None:
        return 0.0
    spread = terms.config.adaptive_budget.spread * _SLACK
    spent = turn.kept.spent + released.noise_factor**-2 if released.noise_factor > 0 else math.inf
    if not 1.0 / spread <= released.noise_factor <= spread or spent > len(terms.factors) * _SLACK:
        raise ProtocolError(f"a factor of {released.noise_factor:g} on the noise was not agreed on")
    return spent


def check_begun(institution: Institution, turn: Turn) -> Memory:
    """Check that the server begins nothing twice, and no more than the budget has room for.

    Keys, masks and signatures are those of one attempt, so a server that begins an attempt again
    gets two kinds of shares of one key. Noise is drawn anew in every epoch, so one that begins
    epochs nobody charges averages it away. An institution counts both by itself.

    Returns:
        What the institution remembers from now on.

    Raises:
        ProtocolError: The round, the attempt or the epoch is none that can come now.
    """
    sent, plan, disk = turn.broadcast, institution.plan, turn.memory
    mine = institution.memory
    last, rounds = max(mine.last, disk.last), len(plan.terms.factors)
    if sent.round != turn.round or not 1 <= sent.round <= rounds:
        raise ProtocolError(f"round {sent.round} is none of the {rounds} that were agreed on")
    if sent.attempt <= max(mine.attempt, disk.attempt):
        raise ProtocolError(f"attempt {sent.attempt} was begun before, and its keys are used up")
    if sent.round < last and not (mine.of(sent.round) or disk.of(sent.round)):
        raise ProtocolError(f"round {sent.round} can't follow round {last}, which was confirmed")
    epochs = dict(disk.epochs)
    for round, epoch in mine.epochs.items():
        epochs[round] = max(epoch, epochs.get(round, 0))
    if sent.epoch < epochs.get(sent.round, 0):
        raise ProtocolError(
            f"epoch {sent.epoch} of round {sent.round} is over: its noise was drawn anew"
        )
    known = replace(mine, epochs=epochs, attempt=sent.attempt).drawn(sent.round, sent.epoch)
    _check_budget(institution, known.epochs, max(last, sent.round))
    return known


def _check_budget(institution: Institution, epochs: Mapping[int, int], last: int) -> None:
    """Check that all that was released up to a round, and again, is within the budget.

    Calibration is for every round once. An adaptive schedule is added up by `check_broadcast`.
    """
    terms, plan = institution.plan.terms, institution.plan
    config = terms.config
    if not epochs or config.target_epsilon is None or terms.spends_adaptively:
        return
    from fedfuse_ray.privacy.accounting.budget import Account  # scipy: a second, seldom needed

    blocks = plan.blocks_of(institution.participant)
    events = [
        replace(event, count=event.count * (1 + epochs.get(round, 0)))
        for round in range(1, last + 1)
        for event in terms.events(institution.name, blocks, round)
    ]
    account = Account(config.delta, config.target_epsilon, accountant=config.accountant)
    try:
        account.charge(events)
    except BudgetSpentError as error:
        raise ProtocolError(f"the server draws noise anew too often: {error}") from None
