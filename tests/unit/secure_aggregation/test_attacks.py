"""Secure aggregation: what a malicious server or member tries, and who notices."""

from __future__ import annotations

import numpy as np
import pytest

from fedfuse_ray.errors import InputError, ProtocolError
from fedfuse_ray.privacy.secure_aggregation import Client, Identity, Server, Stage
from fedfuse_ray.privacy.secure_aggregation import envelope as frame
from fedfuse_ray.privacy.secure_aggregation.envelope import Kind
from fedfuse_ray.privacy.secure_aggregation.keys import KeyPair
from fedfuse_ray.privacy.secure_aggregation.messages import Delivery, Names, Shares, UnmaskingShares
from fedfuse_ray.privacy.secure_aggregation.shamir import SHARE_BYTES
from tests.support.privacy.secure_rounds import IDENTITIES, NAMES, Rounds, make_terms


def test_a_client_never_answers_for_two_lists_of_survivors() -> None:
    play = Rounds(make_terms())
    answers = play.until(Stage.MASKED_INPUT)
    masked = {n: play.message(Stage.MASKED_INPUT, n, answers[n]) for n in NAMES}
    lists = [play.survivor_list(masked, names) for names in (NAMES, NAMES[:-1])]
    client = play.clients[NAMES[0]]
    client.confirm(lists[0])
    with pytest.raises(ProtocolError, match="consistency_check where unmasking is due"):
        client.confirm(lists[1])


def test_clients_told_of_different_survivors_do_not_unmask() -> None:
    play = Rounds(make_terms())
    answers = play.until(Stage.MASKED_INPUT)
    masked = {n: play.message(Stage.MASKED_INPUT, n, answers[n]) for n in NAMES}
    victim = NAMES[6]
    alive, dropped = (play.survivor_list(masked, n) for n in (NAMES, NAMES[:-1]))
    told = {n: alive if n in NAMES[:3] else dropped for n in NAMES if n != victim}
    told[victim] = alive
    sealed = {n: play.clients[n].confirm(answer) for n, answer in told.items()}
    signed = play.records(Kind.CONFIRMATION, sealed)
    with pytest.raises(ProtocolError, match="confirmed other survivors"):
        play.clients[NAMES[0]].unmask(play.answer(Kind.CONFIRMATIONS, signed))
    minority = play.answer(Kind.CONFIRMATIONS, {n: signed[n] for n in NAMES[3:6]})
    with pytest.raises(ProtocolError, match="only 3 institutions confirmed"):
        play.clients[NAMES[3]].unmask(minority)
    # The control: those who were told the same reveal the victim's seeds, not its mask key.
    majority = play.answer(Kind.CONFIRMATIONS, {n: signed[n] for n in (*NAMES[:3], victim)})
    answer = play.clients[NAMES[1]].unmask(majority)
    shares = UnmaskingShares.from_bytes(play.read(answer, Kind.UNMASKING_SHARES), play.terms)
    assert victim in shares.seeds
    assert victim not in shares.mask_keys


def test_an_answer_can_not_even_hold_both_secrets_of_one_institution() -> None:
    with pytest.raises(ProtocolError, match="both secrets of site-1"):
        UnmaskingShares({"site-1": b"a"}, {"site-1": {"fusion": b"b"}})
    UnmaskingShares({"site-1": b"a"}, {"site-2": {"fusion": b"b"}})


def test_a_client_that_was_lied_to_takes_no_further_step() -> None:
    play = Rounds(make_terms())
    answers = play.until(Stage.UNMASKING)
    client = play.clients[NAMES[0]]
    with pytest.raises(ProtocolError):
        client.unmask(answers[NAMES[0]][:-1])
    with pytest.raises(ProtocolError, match="nothing more is due"):
        client.unmask(answers[NAMES[0]])
    play.clients[NAMES[1]].unmask(answers[NAMES[1]])


def test_who_dropped_out_counts_no_more_even_with_a_true_signature() -> None:
    play = Rounds(make_terms())
    late = NAMES[6]
    answers = play.until(Stage.CONSISTENCY_CHECK, lost=(late,))
    names = Names(NAMES[:6]).to_bytes(play.terms)
    sealed = {n: play.message(Stage.CONSISTENCY_CHECK, n, answers[n]) for n in NAMES[:3]}
    sealed[late] = frame.seal(Kind.CONFIRMATION, names, play.terms, late, IDENTITIES[late])
    with pytest.raises(ProtocolError, match="had dropped out before"):
        play.server.receive(sealed[late])
    signed = play.records(Kind.CONFIRMATION, sealed)
    with pytest.raises(ProtocolError, match="without being one"):
        play.clients[NAMES[0]].unmask(play.answer(Kind.CONFIRMATIONS, signed))


def test_who_never_shared_its_keys_is_no_survivor() -> None:
    play = Rounds(make_terms())
    absent, present = NAMES[6], NAMES[:6]
    answers = play.until(Stage.MASKED_INPUT, lost=(absent,), since=Stage.SHARE_KEYS)
    masked = {n: play.message(Stage.MASKED_INPUT, n, answers[n]) for n in present}
    names = Names(present).to_bytes(play.terms)
    signed = {n: bytes(play.masked(masked[n], n).partners) for n in present}
    vouched = frame.sign(Kind.PARTNERS, names, play.terms, absent, IDENTITIES[absent])
    longer = play.answer(Kind.SURVIVORS, signed | {absent: vouched})
    with pytest.raises(ProtocolError, match="without having shared its keys"):
        play.clients[NAMES[0]].confirm(longer)
    play.clients[NAMES[1]].confirm(play.answer(Kind.SURVIVORS, signed))


def test_a_list_of_partners_cut_for_one_victim_is_found_out() -> None:
    """Shown no other owner of encoder/ct but one, a victim's block would lose its cover."""
    play = Rounds(make_terms())
    answers = dict(play.until(Stage.MASKED_INPUT))
    victim, hidden = NAMES[0], NAMES[1:3]
    whole = play.delivery(answers[victim])
    cut = Delivery(
        tuple(name for name in whole.partners if name not in hidden),
        {name: data for name, data in whole.ciphertexts.items() if name not in hidden},
    )
    answers[victim] = play.seal_delivery(cut)
    masked = {n: play.message(Stage.MASKED_INPUT, n, answers[n]) for n in NAMES}
    with pytest.raises(ProtocolError, match="masked with other partners"):
        play.server.receive(masked[victim])  # an honest server notices as well
    with pytest.raises(ProtocolError, match="was shown other partners"):
        play.clients[NAMES[4]].confirm(play.survivor_list(masked, NAMES))


@pytest.mark.parametrize("stage", list(Stage))
def test_an_altered_message_is_refused_and_the_true_one_then_taken(stage: Stage) -> None:
    play = Rounds(make_terms())
    answers = play.until(stage)
    name = NAMES[2]
    message = play.message(stage, name, answers[name])
    for position in np.linspace(0, len(message) - 1, 41).astype(int):
        altered = bytearray(message)
        altered[position] ^= 0x10
        with pytest.raises(ProtocolError):
            play.server.receive(bytes(altered))
    for wrong in (message[:-1], message + b"\0", message[:30], b""):
        with pytest.raises(ProtocolError):
            play.server.receive(wrong)
    play.server.receive(message)
    with pytest.raises(ProtocolError, match="a second"):
        play.server.receive(message)


@pytest.mark.parametrize("stage", list(Stage)[1:])
def test_an_altered_answer_of_the_server_is_refused(stage: Stage) -> None:
    for fraction in (0.0, 0.06, 0.3, 0.6, 0.95):
        play = Rounds(make_terms())
        altered = bytearray(play.until(stage)[NAMES[0]])
        altered[int(fraction * len(altered))] ^= 1
        with pytest.raises(ProtocolError):
            play.message(stage, NAMES[0], bytes(altered))


@pytest.mark.parametrize("stage", list(Stage))
def test_a_message_of_another_round_is_refused(stage: Stage) -> None:
    old, new = Rounds(make_terms(round=0)), Rounds(make_terms(round=1))
    old_answers, new_answers = old.until(stage), new.until(stage)
    with pytest.raises(ProtocolError, match="another round"):
        new.server.receive(old.message(stage, NAMES[0], old_answers[NAMES[0]]))
    if stage is not Stage.ADVERTISE_KEYS:
        with pytest.raises(ProtocolError, match="another round"):
            new.message(stage, NAMES[0], old_answers[NAMES[0]])
    new.server.receive(new.message(stage, NAMES[1], new_answers[NAMES[1]]))


def test_a_signature_by_another_identity_is_refused() -> None:
    terms = make_terms()
    body = bytes(64)
    forged = frame.seal(Kind.ADVERTISEMENT, body, terms, NAMES[0], IDENTITIES[NAMES[1]])
    with pytest.raises(ProtocolError, match="never signed"):
        Server(terms).receive(forged)
    stranger = bytearray(forged)
    stranger[18:20] = len(NAMES).to_bytes(2, "little")
    with pytest.raises(ProtocolError, match="number 7, who takes no part"):
        Server(terms).receive(bytes(stranger))
    with pytest.raises(ProtocolError, match="takes no part"):
        frame.seal(Kind.ADVERTISEMENT, body, terms, "stranger", Identity(bytes(32)))
    with pytest.raises(InputError, match="identity"):
        Client(terms, NAMES[0], IDENTITIES[NAMES[1]])


def test_the_roster_must_hold_the_clients_own_keys_and_each_key_once() -> None:
    play = Rounds(make_terms())
    sent = {name: play.clients[name].advertise() for name in NAMES}
    signed = play.records(Kind.ADVERTISEMENT, sent)
    twin = Client(play.terms, NAMES[0], IDENTITIES[NAMES[0]])  # keys that the victim never drew
    other = play.records(Kind.ADVERTISEMENT, {NAMES[0]: twin.advertise()})
    with pytest.raises(ProtocolError, match="other keys of site-0"):
        play.clients[NAMES[0]].share_keys(play.answer(Kind.ROSTER, signed | other))
    body = play.read(sent[NAMES[2]], Kind.ADVERTISEMENT)
    copied = frame.sign(Kind.ADVERTISEMENT, body, play.terms, NAMES[3], IDENTITIES[NAMES[3]])
    with pytest.raises(ProtocolError, match="twice"):
        play.clients[NAMES[1]].share_keys(play.answer(Kind.ROSTER, signed | {NAMES[3]: copied}))
    play.clients[NAMES[2]].share_keys(play.answer(Kind.ROSTER, signed))


def test_a_key_of_small_order_is_refused() -> None:
    with pytest.raises(ProtocolError, match="can't be used"):
        KeyPair(bytes(range(32))).agree(bytes(32))


@pytest.mark.parametrize("lost", [(), NAMES[6:]], ids=["seed", "mask key"])
@pytest.mark.parametrize("liar", [NAMES[0], NAMES[3]], ids=["derived", "sent"])
def test_a_wrong_share_of_a_member_never_gives_a_wrong_sum(
    lost: tuple[str, ...], liar: str
) -> None:
    play = Rounds(make_terms())
    answers = play.until(Stage.UNMASKING, lost)
    target = NAMES[6] if lost else NAMES[5]
    shares = play.clients[liar]._shares[target]
    wrong = bytes(SHARE_BYTES)
    play.clients[liar]._shares[target] = Shares(wrong, dict.fromkeys(shares.seeds, wrong))
    for name in play.server.expected:
        play.server.receive(play.message(Stage.UNMASKING, name, answers[name]))
    with pytest.raises(ProtocolError, match=f"shares .*{target}"):
        play.server.unmask()
