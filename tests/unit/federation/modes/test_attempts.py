"""A secure round that is begun anew: keys of its own, and no other survivors or weights."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from fedfuse_ray.errors import FedfuseError, InstitutionError, SurvivorsChangedError
from fedfuse_ray.federation.checkpoints.promise import Journal, Memory, Promise, read
from fedfuse_ray.federation.modes import masked
from fedfuse_ray.federation.modes.masked import MaskedStep
from fedfuse_ray.privacy.secure_aggregation.messages import EncryptedShares
from tests.support.federations import plan_of, tiny
from tests.support.privacy.attempts import KINDS, Federation, refuses, unmasked
from tests.support.watching import NO_COLLUDERS

VICTIM, BLOCK = "med-02", "fusion"


@pytest.fixture
def federation():
    return Federation(plan_of(tiny(NO_COLLUDERS, paradigm="fedfuse")))


@pytest.fixture
def sent(monkeypatch):
    """What institutions put behind their masks, in the order of attempts."""
    found = []
    original = masked.noisy_words

    def spying(sums, name, grid, draws):
        words = original(sums, name, grid, draws)
        found.append((name, words))
        return words

    monkeypatch.setattr(masked, "noisy_words", spying)
    return found


def test_another_attempt_shares_nothing_with_the_first_and_gives_the_same_sum(federation):
    first, second = federation.attempt(0), federation.attempt(1)
    names = federation.plan.by_name
    keys = [
        key
        for attempt, who in itertools.product((first, second), names)
        for key in (attempt.keys(who).cipher_key, attempt.keys(who).mask_key)
    ]
    assert len(set(keys)) == 4 * len(names)
    for who in names:
        shares = [
            EncryptedShares.from_bytes(a.body(MaskedStep.SHARE_KEYS, who), a.terms, who)
            for a in (first, second)
        ]
        both = [{*s.commitments.values(), *s.ciphertexts.values()} for s in shares]
        assert not both[0] & both[1]
        words = [a.masked(who, BLOCK) for a in (first, second)]
        assert np.mean(words[0] == words[1]) < 0.01
    revealed = [a.revealed.sums for a in (first, second)]
    for block, total in revealed[0].items():
        np.testing.assert_array_equal(total, revealed[1][block])


def test_institutions_refuse_other_survivors_under_the_same_noise(federation):
    federation.attempt(0)
    with pytest.raises(SurvivorsChangedError, match="med-01 confirmed other survivors"):
        federation.attempt(1, lost=(VICTIM,))
    # With noise that is drawn anew, and charged again, they go on.
    again = federation.attempt(2, epoch=1, lost=(VICTIM,))
    assert VICTIM not in again.revealed.owners[BLOCK]
    # And not back to the noise before.
    with pytest.raises(InstitutionError, match="epoch 0 of round 1 is over"):
        federation.attempt(3)


def test_institutions_refuse_other_weights_under_the_same_noise(federation):
    """Their sum would be another release, which nobody charged."""
    federation.attempt(0)
    moved = {name: v + np.float32(1e-3) for name, v in federation.server.weights.items()}
    other = dataclasses.replace(federation.server.begin(1), held=moved)
    with pytest.raises(SurvivorsChangedError, match="other survivors or weights"):
        federation.attempt(1, broadcast=other)
    assert federation.attempt(2).revealed.sums


def test_noise_drawn_anew_is_new_in_every_share(federation, sent):
    federation.attempt(0)
    federation.attempt(1)
    federation.attempt(2, epoch=1)
    count = len(federation.plan.by_name)
    for (who, one), (_, again), (_, anew) in zip(
        sent[:count], sent[count : 2 * count], sent[2 * count :], strict=True
    ):
        for block, words in one.items():
            np.testing.assert_array_equal(words, again[block], err_msg=who)
            assert np.mean(words == anew[block]) < 0.2


def test_shares_of_two_attempts_unmask_nobody(federation):
    whole = federation.attempt(0)
    federation.forget()
    without = federation.attempt(1, lost=(VICTIM,))
    assert unmasked(VICTIM, BLOCK, whole, without) is None


def test_keys_that_ignore_the_attempt_unmask_an_update(federation, sent):
    """Negative control: the attack succeeds where neither keys nor institutions know attempts."""
    whole = federation.attempt(0)
    truth = {name: words[BLOCK] for name, words in sent if BLOCK in words}
    federation.forget()
    without = federation.attempt(0, lost=(VICTIM,))
    found = unmasked(VICTIM, BLOCK, whole, without)
    np.testing.assert_array_equal(found, truth[VICTIM])
    assert not np.array_equal(found, truth["med-01"])


@pytest.mark.parametrize("step", MaskedStep)
def test_what_was_signed_fits_no_other_session_and_no_other_attempt(federation, step):
    told = federation.attempt(0)
    elsewhere = Federation(plan_of(federation.plan.experiment)).attempt(0)
    federation.forget()
    later = federation.attempt(1)
    for who, message in told.messages[step].items():
        assert not refuses(told.terms, message, KINDS[step])
        assert refuses(elsewhere.terms, message, KINDS[step])
        assert refuses(later.terms, message, KINDS[step])
        assert who in elsewhere.messages[step]


def test_every_process_has_a_session_of_its_own():
    one, other = (plan_of(tiny(paradigm="fedfuse")) for _ in range(2))
    assert one.session != other.session
    assert one == other  # the plan is the same all the same


# After rounds 2 and 3, of which the third was drawn anew once.
KNOWN = Memory().after(Promise(2, 0, ("a",), "w")).after(Promise(3, 1, ("a", "b"), "x"))


@pytest.mark.parametrize(
    ("other", "allowed"),
    [
        (Promise(3, 1, ("a", "b"), "x"), True),
        (Promise(3, 1, ("a", "b")), True),
        (Promise(3, 1, ("a", "b"), "y"), False),
        (Promise(3, 1, ("a",), "x"), False),
        (Promise(3, 1, ("a", "b", "c"), "x"), False),
        (Promise(3, 0, ("a", "b"), "x"), False),
        (Promise(3, 2, ("a",), "y"), True),
        (Promise(4, 0, ("a",), "y"), True),
        # A run that goes back by a round makes the same sum again, or the next one is another, too.
        (Promise(2, 0, ("a",), "w"), True),
        (Promise(2, 0, ("a", "b"), "w"), False),
        (Promise(2, 5, ("a",), "w"), False),
        (Promise(1, 0, ("a",), "w"), False),
    ],
)
def test_what_may_be_promised_after_two_promises(other, allowed):
    assert KNOWN.allows(other) is allowed


def test_a_memory_keeps_every_promise_and_every_epoch():
    memory = KNOWN.after(Promise(4, 2, ("a",))).after(Promise(5, 0, ("a",)))
    assert [promise.round for promise in memory.promises] == [2, 3, 4, 5]
    assert memory.epochs == {3: 1, 4: 2}
    assert memory.drawn(4, 1) is memory
    assert memory.drawn(5, 1).epochs == {3: 1, 4: 2, 5: 1}
    again = memory.after(Promise(4, 2, ("a",)))
    assert again == memory


def test_a_journal_outlives_its_process_and_keeps_the_first_survivors(tmp_path):
    journal = Journal(tmp_path)
    journal.note(1, 0, ())  # nothing is settled yet
    assert read(tmp_path) == Memory()
    journal.note(1, 0, ("a", "b"))
    journal.note(1, 0, ("a",))  # refused by institutions, so it is not what they confirmed
    assert Journal(tmp_path).memory == Memory((Promise(1, 0, ("a", "b")),))
    Journal(tmp_path).note(1, 1, ("a",))
    assert read(tmp_path) == Memory((Promise(1, 1, ("a",)),), {1: 1})
    assert Journal(None).memory == Memory()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"promises": [{"round": 1}], "epochs": {}}',
        '{"promises": []}',
        '"x"',
    ],
)
def test_a_journal_that_can_not_be_read_is_refused(tmp_path, text):
    (tmp_path / "survivors.json").write_text(text)
    with pytest.raises(FedfuseError, match=r"survivors\.json can't be read"):
        Journal(tmp_path)
