"""Secure aggregation: messages are small, have one form each, and can't be put in another place."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.packing import packed_bytes
from fedfuse_ray.privacy.secure_aggregation import (
    BlockTerms,
    RoundReport,
    RoundTerms,
    Stage,
    keys,
    run_round,
    to_modular,
)
from fedfuse_ray.privacy.secure_aggregation import envelope as frame
from fedfuse_ray.privacy.secure_aggregation.envelope import Kind
from fedfuse_ray.privacy.secure_aggregation.fields import Reader, bitmap, bitmap_bytes
from fedfuse_ray.privacy.secure_aggregation.keys import ShareChannel
from fedfuse_ray.privacy.secure_aggregation.messages import Names
from fedfuse_ray.privacy.secure_aggregation.round_secrets import commit
from tests.support.privacy.secure_rounds import (
    IDENTITIES,
    NAMES,
    Rounds,
    make_inputs,
    make_terms,
    simulation_identities,
    simulation_randomness,
)


def fifteen() -> tuple[RoundReport, int]:
    """Run the demo's round: 15 institutions, threshold 10, 5 blocks each. Return words' bytes."""
    names = tuple(f"institution-with-a-long-name-{index:02d}" for index in range(15))
    identities = simulation_identities(0, names)
    terms = RoundTerms(
        session="fifteen",
        round=1,
        threshold=10,
        modulus_bits=12,
        identities={name: identity.public for name, identity in identities.items()},
        blocks={f"encoder/{index}": BlockTerms(64, names) for index in range(5)},
    )
    words = to_modular(np.zeros(64, dtype=np.int64), 12)
    inputs = {name: dict.fromkeys(terms.blocks, words) for name in names}
    return run_round(terms, identities, inputs), 5 * packed_bytes(64, 12)


def test_the_protocol_costs_little_beside_the_words() -> None:
    report, words = fifteen()
    for sent in report.uplink_bytes.values():
        assert sent - words <= 2504
    for received in report.downlink_bytes.values():
        assert received <= 4580
    stages = {s: max(counts.values()) for s, counts in report.uplink_by_stage.items()}
    stages["masked_input"] -= words
    header, signature, bits = 20, 64, 2
    frame_bytes = header + signature
    assert stages == {
        "advertise_keys": frame_bytes + 2 * 32,
        "share_keys": frame_bytes + 5 * 16 + bits + 5 * (6 * 17 + 16),
        "masked_input": frame_bytes + bits + signature + 1,
        "consistency_check": frame_bytes + bits,
        "unmasking": frame_bytes + 2 * bits + 15 * 5 * 17,
    }


@pytest.mark.parametrize("members", [1, 7, 8, 9, 15])
def test_a_subset_has_one_form(members: int) -> None:
    order = [f"member-{index}" for index in range(members)]
    for present in (order, order[:1], order[-1:], [], order[::2]):
        data = bitmap(order, present)
        assert len(data) == bitmap_bytes(members) == (members + 7) // 8
        reader = Reader(data, "it")
        assert reader.subset(order) == tuple(present)
        reader.end()
    if members % 8:
        spare = bytes(bitmap_bytes(members) - 1) + bytes([1 << members % 8])
        with pytest.raises(ProtocolError, match="do not exist"):
            Reader(spare, "it").subset(order)
    with pytest.raises(ProtocolError, match="truncated"):
        Reader(b"", "it").subset(order)
    reader = Reader(data + b"\0", "it")
    reader.subset(order)
    with pytest.raises(ProtocolError, match="1 bytes too many"):
        reader.end()


def test_a_record_counts_for_its_sender_and_its_kind_alone() -> None:
    """Partners and survivors have the same form: only the kind under the signature differs."""
    play = Rounds(make_terms())
    answers = play.until(Stage.MASKED_INPUT)
    masked = {n: play.message(Stage.MASKED_INPUT, n, answers[n]) for n in NAMES}
    partners = {n: bytes(play.masked(masked[n], n).partners) for n in NAMES}
    survivors = play.survivor_list(masked, NAMES)
    sealed = {n: play.clients[n].confirm(survivors) for n in NAMES}
    signed = play.records(Kind.CONFIRMATION, sealed)
    assert signed[NAMES[0]][:1] == partners[NAMES[0]][:1]
    swapped = signed | {NAMES[1]: signed[NAMES[2]], NAMES[2]: signed[NAMES[1]]}
    for wrong in (signed | {NAMES[1]: partners[NAMES[1]]}, swapped):
        answer = play.read(play.answer(Kind.CONFIRMATIONS, wrong), Kind.CONFIRMATIONS)
        with pytest.raises(ProtocolError, match="'site-1' was altered, or 'site-1' never signed"):
            frame.read_records(answer, Kind.CONFIRMATION, play.terms)
    answer = play.read(play.answer(Kind.CONFIRMATIONS, signed), Kind.CONFIRMATIONS)
    assert tuple(frame.read_records(answer, Kind.CONFIRMATION, play.terms)) == NAMES
    for cut in (answer[:-1], bytes(answer) + b"\0"):
        with pytest.raises(ProtocolError, match="too many"):
            frame.read_records(cut, Kind.CONFIRMATION, play.terms)


def test_nothing_rests_on_the_half_of_the_digest_in_the_header() -> None:
    terms, other = make_terms(round=0), make_terms(round=1)
    twin = make_terms(round=2)
    twin.__dict__["digest"] = terms.digest[:16] + other.digest[16:]  # as if halves had collided
    name, body = NAMES[0], bytes(64)
    sealed = frame.seal(Kind.ADVERTISEMENT, body, twin, name, IDENTITIES[name])
    with pytest.raises(ProtocolError, match="never signed"):
        frame.unseal(sealed, Kind.ADVERTISEMENT, terms)
    true = frame.seal(Kind.ADVERTISEMENT, body, terms, name, IDENTITIES[name])
    assert true[:20] == sealed[:20]
    assert frame.unseal(true, Kind.ADVERTISEMENT, terms).sender == name


def test_a_server_can_not_speak_for_a_member_nor_a_member_for_the_server() -> None:
    terms = make_terms()
    body = Names(NAMES).to_bytes(terms)
    posing = frame.seal(Kind.SURVIVORS, body, terms, NAMES[0], IDENTITIES[NAMES[0]])
    with pytest.raises(ProtocolError, match="not the server's"):
        frame.unseal(posing, Kind.SURVIVORS, terms)
    unsigned = frame.seal(Kind.CONFIRMATION, body, terms)
    with pytest.raises(ProtocolError, match="takes no part"):
        frame.unseal(unsigned, Kind.CONFIRMATION, terms)


@pytest.fixture
def encryptions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, bytes]]:
    """Key and nonce of everything that is encrypted."""
    seen: list[tuple[bytes, bytes]] = []

    class Noting:
        def __init__(self, key: bytes) -> None:
            self._key, self._cipher = key, AESGCM(key)

        def encrypt(self, nonce: bytes, plain: bytes, context: bytes) -> bytes:
            seen.append((self._key, nonce))
            return self._cipher.encrypt(nonce, plain, context)

        def decrypt(self, nonce: bytes, sealed: bytes, context: bytes) -> bytes:
            return self._cipher.decrypt(nonce, sealed, context)

    monkeypatch.setattr(keys, "AESGCM", Noting)
    return seen


def test_no_key_encrypts_two_messages(encryptions: list[tuple[bytes, bytes]]) -> None:
    for round in (0, 1):
        terms = make_terms(round=round)
        run_round(terms, IDENTITIES, make_inputs(terms))
    assert len(set(encryptions)) == len(encryptions) == 2 * 7 * 3
    # The control: keys drawn again, as in a simulation, are found out.
    terms, before = make_terms(), len(set(encryptions))
    for _ in range(2):
        run_round(
            terms, IDENTITIES, make_inputs(terms), None, lambda n: simulation_randomness(0, n, 0)
        )
    assert len(set(encryptions)) == before + 7 * 3 < len(encryptions)


def test_encrypted_shares_open_for_their_pair_direction_and_round_alone() -> None:
    agreed, digest = b"a" * 32, make_terms().digest
    sealed = ShareChannel.between(agreed, digest, "u", "v").encrypt(b"shares")
    assert len(sealed) == len(b"shares") + 16
    assert ShareChannel.between(agreed, digest, "u", "v").decrypt(sealed) == b"shares"
    others: Mapping[str, tuple[bytes, bytes, str, str]] = {
        "direction": (agreed, digest, "v", "u"),
        "recipient": (agreed, digest, "u", "w"),
        "round": (agreed, make_terms(round=1).digest, "u", "v"),
        "pair": (b"b" * 32, digest, "u", "v"),
    }
    for other in others.values():
        with pytest.raises(ProtocolError, match="altered or are not of this round"):
            ShareChannel.between(*other).decrypt(sealed)


def test_commitments_tell_seeds_owners_blocks_and_rounds_apart() -> None:
    digests = [make_terms(round=round).digest for round in (0, 1)]
    found = [
        commit(seed, digest, owner, block)
        for seed in (b"s" * 16, b"t" * 16)
        for digest in digests
        for owner in NAMES[:2]
        for block in ("fusion", "head")
    ]
    assert len(set(found)) == len(found) == 16
    assert {len(item) for item in found} == {16}
