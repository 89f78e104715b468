"""Secure aggregation: the shares that both sides derive instead of sending them."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest

from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.privacy.secure_aggregation import Client, Stage, run_round
from fedfuse_ray.privacy.secure_aggregation.envelope import Kind
from fedfuse_ray.privacy.secure_aggregation.messages import Delivery, EncryptedShares, Shares
from fedfuse_ray.privacy.secure_aggregation.round_secrets import RoundSecrets
from fedfuse_ray.privacy.secure_aggregation.shamir import combine, complete
from fedfuse_ray.privacy.secure_aggregation.sharing import derived_shares, derivers
from tests.support.privacy.secure_rounds import (
    IDENTITIES,
    NAMES,
    THRESHOLD,
    Rounds,
    check_sums,
    make_inputs,
    make_terms,
)


def test_each_member_derives_shares_of_as_many_others() -> None:
    terms = make_terms()
    assert derivers(terms, NAMES, NAMES[5]) == (NAMES[6], NAMES[0], NAMES[1])
    smaller = [NAMES[n] for n in (6, 1, 3, 4, 0)]
    assert derivers(terms, smaller, NAMES[4]) == (NAMES[6], NAMES[0], NAMES[1])
    for roster in (NAMES, smaller, NAMES[2:6]):
        counts = Counter(name for sender in roster for name in derivers(terms, roster, sender))
        assert counts == dict.fromkeys(roster, THRESHOLD - 1)


def test_no_two_derived_shares_are_the_same_and_both_sides_have_them() -> None:
    agreed = {
        (first, second): bytes([n]) * 32
        for n, (first, second) in enumerate(combinations(NAMES[:3], 2))
    }
    found: list[bytes] = []
    for terms in (make_terms(round=0), make_terms(round=1)):
        for (first, second), secret in agreed.items():
            for sender, recipient in ((first, second), (second, first)):
                shares = derived_shares(secret, terms, sender, recipient)
                assert shares == derived_shares(secret, terms, sender, recipient)
                found += (shares.mask_key, *shares.seeds.values())
    assert len(set(found)) == len(found) > 30


@pytest.mark.parametrize("gone", [0, 1, 3])
def test_what_peers_hold_sent_or_derived_gives_each_secret(gone: int) -> None:
    play = Rounds(make_terms())
    lost, present = NAMES[1 : 1 + gone], (NAMES[0], *NAMES[1 + gone :])
    answers = play.until(Stage.MASKED_INPUT, lost=lost, since=Stage.ADVERTISE_KEYS)
    for name in present:
        play.message(Stage.MASKED_INPUT, name, answers[name])
    points = play.terms.points
    for sender in present:
        secrets: RoundSecrets = play.clients[sender]._secrets
        held: dict[str, Shares] = {n: play.clients[n]._shares[sender] for n in present}
        for chosen in combinations(present, THRESHOLD):
            keys = {points[n]: held[n].mask_key for n in chosen}
            assert combine(keys, THRESHOLD) == secrets.mask_secret
            for block, seed in secrets.seeds.items():
                shares = {points[n]: held[n].seeds[block] for n in chosen}
                assert combine(shares, THRESHOLD) == seed
        few = {points[n]: held[n].mask_key for n in present[: THRESHOLD - 1]}
        with pytest.raises(ProtocolError, match="too few"):
            combine(few, THRESHOLD)


def test_shares_are_sent_to_those_who_can_not_derive_them_and_to_nobody_else() -> None:
    play = Rounds(make_terms())
    answers = play.until(Stage.SHARE_KEYS)
    for sender in NAMES:
        message = play.message(Stage.SHARE_KEYS, sender, answers[sender])
        body = play.read(message, Kind.ENCRYPTED_SHARES)
        recipients = set(EncryptedShares.from_bytes(body, play.terms, sender).ciphertexts)
        assert recipients == set(NAMES) - {sender, *derivers(play.terms, NAMES, sender)}
        assert len(recipients) == len(NAMES) - THRESHOLD


def test_a_roster_of_a_threshold_sends_no_shares_at_all() -> None:
    terms = make_terms()
    inputs, lost = make_inputs(terms), NAMES[:3]
    report = run_round(terms, IDENTITIES, inputs, {Stage.ADVERTISE_KEYS: lost})
    check_sums(terms, inputs, report.unmasked, NAMES[3:])
    header, signature, bitmap, commitment = 20, 64, 1, 16
    owned = len(terms.owned_by(NAMES[4]))
    expected = header + bitmap + owned * commitment + signature
    assert report.uplink_by_stage["share_keys"][NAMES[4]] == expected


def refused(play: Rounds, recipient: str, delivery: Delivery) -> str:
    client: Client = play.clients[recipient]
    with pytest.raises(ProtocolError) as caught:
        client.mask(play.seal_delivery(delivery), play.inputs[recipient])
    return str(caught.value)


def test_a_share_must_come_in_the_way_that_the_roster_says() -> None:
    play = Rounds(make_terms())
    answers = play.until(Stage.MASKED_INPUT)
    whole = {name: play.delivery(answers[name]) for name in NAMES}
    sender = NAMES[0]  # NAMES[1:4] derive its shares, NAMES[4:] are sent theirs
    withheld = {n: c for n, c in whole[NAMES[4]].ciphertexts.items() if n != sender}
    assert "have to be sent" in refused(play, NAMES[4], Delivery(NAMES, withheld))
    slipped = {**whole[NAMES[1]].ciphertexts, sender: whole[NAMES[5]].ciphertexts[sender]}
    assert "are derived, not sent" in refused(play, NAMES[1], Delivery(NAMES, slipped))
    swapped = {**whole[NAMES[6]].ciphertexts, sender: whole[NAMES[5]].ciphertexts[sender]}
    assert "were altered" in refused(play, NAMES[6], Delivery(NAMES, swapped))
    unlisted = Delivery(NAMES[1:], whole[NAMES[5]].ciphertexts)
    assert "did not share" in refused(play, NAMES[5], unlisted)
    play.clients[NAMES[2]].mask(answers[NAMES[2]], play.inputs[NAMES[2]])


def test_of_a_member_that_never_shared_too_few_shares_exist() -> None:
    """A server may pretend that it did: only those who derive their share believe it."""
    play = Rounds(make_terms())
    absent, present = NAMES[6], NAMES[:6]
    answers = play.until(Stage.MASKED_INPUT, lost=(absent,), since=Stage.SHARE_KEYS)
    believed = []
    for name in present:
        told = Delivery(NAMES, play.delivery(answers[name]).ciphertexts)
        try:
            play.clients[name].mask(play.seal_delivery(told), play.inputs[name])
        except ProtocolError:
            continue
        believed.append(name)
    assert believed == list(derivers(play.terms, NAMES, absent))
    assert len(believed) < THRESHOLD
    held = {play.terms.points[n]: play.clients[n]._shares[absent].mask_key for n in believed}
    with pytest.raises(ProtocolError, match="too few"):
        combine(held, THRESHOLD)
    # What they hold was fixed before the secret: with any share more it gives any secret.
    secret = play.clients[absent]._secrets.mask_secret
    for candidate in (secret, bytes(16)):
        assert combine(held | complete(candidate, held, [5]), THRESHOLD) == candidate


def test_a_client_shown_another_roster_spoils_the_round_and_reveals_nothing() -> None:
    play = Rounds(make_terms())
    sent = {name: play.clients[name].advertise() for name in NAMES}
    for message in sent.values():
        play.server.receive(message)
    roster, victim = play.server.roster(), NAMES[0]
    signed = play.records(Kind.ADVERTISEMENT, {n: m for n, m in sent.items() if n != NAMES[1]})
    message = play.clients[victim].share_keys(play.answer(Kind.ROSTER, signed))
    with pytest.raises(ProtocolError, match="other encrypted shares than are due"):
        play.server.receive(message)
    for name in NAMES[1:]:
        play.server.receive(play.clients[name].share_keys(roster))
    # A server that goes on has no share for the one who is no longer among those that derive it.
    given = play.server.deliveries()[NAMES[4]]
    told = Delivery(NAMES, play.delivery(given).ciphertexts)
    assert "have to be sent" in refused(play, NAMES[4], told)
