"""A server that counts wrong on purpose: attempts made twice, uncharged epochs, odd rounds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fedfuse_ray.errors import InstitutionError
from fedfuse_ray.federation.checkpoints.promise import Memory, Promise
from fedfuse_ray.federation.modes import masked
from fedfuse_ray.federation.modes.exchange import Answer, Turn
from fedfuse_ray.federation.modes.masked import MaskedStep
from fedfuse_ray.privacy.accounting.budget import Account
from tests.support.federations import plan_of, tiny
from tests.support.privacy.attempts import Federation, unmasked
from tests.support.watching import NO_COLLUDERS

VICTIM, BLOCK, ROUNDS = "med-02", "fusion", 3
WITHOUT_TARGET = (
    "privacy.target_epsilon=null",
    "privacy.noise_multiplier=8.0",
    NO_COLLUDERS,
)


@pytest.fixture
def federation():
    return Federation(plan_of(tiny(NO_COLLUDERS, paradigm="fedfuse")))


@pytest.fixture
def sent(monkeypatch):
    """What the victim puts behind its masks, in the order of attempts."""
    found, original = [], masked.noisy_words

    def spying(sums, name, grid, draws):
        words = original(sums, name, grid, draws)
        if name == VICTIM:
            found.append(words[BLOCK])
        return words

    monkeypatch.setattr(masked, "noisy_words", spying)
    return found


def begins(federation, memory=None, **changes):
    """Have all institutions begin a round of a changed broadcast, after what the disk keeps."""
    broadcast = federation.broadcast(**changes)
    for side in federation.sides:
        turn = Turn(broadcast.round, Answer(), broadcast, memory=memory or Memory())
        assert side.take(MaskedStep.ADVERTISE, turn).message


def test_an_attempt_that_is_begun_twice_under_new_noise_is_refused(federation):
    """Its keys would be the same, and new noise lets other survivors be confirmed."""
    federation.attempt(0)
    with pytest.raises(InstitutionError, match="attempt 0 was begun before") as caught:
        federation.attempt(0, epoch=1, lost=(VICTIM,))
    assert caught.value.institution == "med-01"
    assert federation.attempt(1, epoch=1, lost=(VICTIM,)).revealed.sums


def test_an_attempt_that_is_begun_twice_under_new_noise_unmasks_an_update(federation, sent):
    """Negative control: institutions that remember epochs and survivors, but no attempts."""
    whole = federation.attempt(0)
    for side in federation.sides:
        memory = side.institution.memory
        side.institution.memory = Memory(memory.promises, memory.epochs)
    without = federation.attempt(0, epoch=1, lost=(VICTIM,))
    np.testing.assert_array_equal(unmasked(VICTIM, BLOCK, whole, without), sent[0])


def test_an_institution_whose_process_died_is_told_which_attempts_were_begun(federation):
    federation.attempt(4)
    federation.forget()
    with pytest.raises(InstitutionError, match="attempt 0 was begun before"):
        begins(federation, Memory(attempt=4))
    begins(federation, Memory(attempt=4), attempt=5)


def test_noise_is_drawn_anew_only_as_often_as_the_budget_has_room_for(federation):
    """Three rounds are calibrated: the first one may take all of it, and no more."""
    attempts = itertools.count()
    for epoch in range(ROUNDS):
        federation.attempt(next(attempts), epoch=epoch)
    for epoch in (ROUNDS, 10**12):
        with pytest.raises(InstitutionError, match="draws noise anew too often"):
            federation.attempt(next(attempts), epoch=epoch)


def test_there_are_no_epochs_before_the_first(federation):
    with pytest.raises(InstitutionError, match="epoch -1 of round 1 is over"):
        begins(federation, epoch=-1)


def test_without_a_budget_of_their_own_the_noise_is_averaged_away():
    """Negative control: without a target institutions give release after release for one charge."""
    federation = Federation(plan_of(tiny(*WITHOUT_TARGET, paradigm="fedfuse")))
    sums = [federation.attempt(e, epoch=e).revealed.sums[BLOCK] for e in range(8)]
    spread = np.std(sums, axis=0).mean()
    left = np.std([np.mean(sums[:4], axis=0), np.mean(sums[4:], axis=0)], axis=0).mean()
    assert left < 0.75 * spread
    once = federation.plan.terms.events(VICTIM, (BLOCK,), 1)
    account = Account(1e-5).charge(once)
    assert Account(1e-5).charge(8 * once).epsilon > 2 * account.epsilon


def test_epochs_of_earlier_rounds_count_even_if_only_the_disk_remembers_them(federation):
    spent = Memory((Promise(1, ROUNDS, ("med-01",)),), {1: ROUNDS})
    with pytest.raises(InstitutionError, match="draws noise anew too often"):
        begins(federation, spent, round=2)


@pytest.mark.parametrize("round", [0, -1, ROUNDS + 1])
def test_a_round_that_was_not_agreed_on_is_refused(federation, round):
    """Round 0 has the last round's noise, by its index, and would be one release more."""
    with pytest.raises(InstitutionError, match=f"round {round} is none of the 3"):
        begins(federation, round=round)


def test_a_broadcast_of_another_round_is_refused(federation):
    turn = Turn(1, Answer(), federation.broadcast(round=2))
    with pytest.raises(InstitutionError, match="round 2 is none of"):
        federation.sides[0].take(MaskedStep.ADVERTISE, turn)


def test_no_round_comes_after_a_later_one_that_was_confirmed(federation):
    with pytest.raises(InstitutionError, match="round 1 can't follow round 3"):
        begins(federation, Memory((Promise(3, 0, ("med-01",)),)))
    # It may, if it was confirmed before: then it is the same release.
    both = Memory((Promise(1, 0, ("med-01",)), Promise(2, 0, ("med-01",))))
    begins(federation, both)
