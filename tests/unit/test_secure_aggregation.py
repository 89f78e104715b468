"""Secure aggregation: exact sums with dropouts, and what each side must refuse."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

import fedfuse_ray.privacy.secure_aggregation as secure_aggregation
from fedfuse_ray import rng
from fedfuse_ray.errors import InputError, ProtocolError
from fedfuse_ray.packing import pack, packed_bytes, unpack
from fedfuse_ray.privacy.secure_aggregation import (
    Aggregate,
    BlockTerms,
    Client,
    FixedPoint,
    Identity,
    Modular,
    RoundTerms,
    Server,
    Stage,
    from_modular,
    minimum_threshold,
    run_round,
    simulation_identities,
    simulation_randomness,
    to_modular,
    unprotected_blocks,
    word_dtype,
)
from fedfuse_ray.privacy.secure_aggregation import envelope as frame
from fedfuse_ray.privacy.secure_aggregation.envelope import Kind
from fedfuse_ray.privacy.secure_aggregation.keys import KeyPair
from fedfuse_ray.privacy.secure_aggregation.masking import (
    Stream,
    add_streams,
    pair_stream,
    self_stream,
)
from fedfuse_ray.privacy.secure_aggregation.messages import MaskedInput, Shares, UnmaskingShares
from fedfuse_ray.privacy.secure_aggregation.round_secrets import RoundSecrets
from fedfuse_ray.privacy.secure_aggregation.shamir import PRIME, combine, split

NAMES = tuple(f"site-{index}" for index in range(7))
THRESHOLD = 4
IDENTITIES = simulation_identities(0, NAMES)
OWNERS: dict[str, tuple[str, ...]] = {
    "encoder/ct": NAMES[:4],
    "encoder/mri": NAMES[3:],
    "fusion": NAMES,
    "head/medical": NAMES[2:3],
}
Inputs = dict[str, dict[str, Modular]]


def make_terms(round: int = 0, bits: int = 16, **minimum: int) -> RoundTerms:
    return RoundTerms(
        session="test",
        round=round,
        threshold=THRESHOLD,
        modulus_bits=bits,
        identities={name: identity.public for name, identity in IDENTITIES.items()},
        blocks={
            block: BlockTerms(40 + len(block), owners, minimum.get(block.split("/")[0]))
            for block, owners in OWNERS.items()
        },
    )


def make_inputs(terms: RoundTerms) -> Inputs:
    generator = rng.generator(0, "test", terms.modulus_bits)
    return {
        name: {
            block: generator.integers(
                0, 1 << terms.modulus_bits, terms.blocks[block].size, dtype=np.uint64
            ).astype(word_dtype(terms.modulus_bits))
            for block in terms.owned_by(name)
        }
        for name in terms.identities
    }


def check_sums(
    terms: RoundTerms, inputs: Inputs, aggregate: Aggregate, survivors: Collection[str]
) -> None:
    for block, total in aggregate.sums.items():
        owners = tuple(name for name in terms.blocks[block].owners if name in survivors)
        exact = sum(1 * inputs[name][block].astype(np.uint64) for name in owners)
        np.testing.assert_array_equal(total, exact % (1 << terms.modulus_bits))
        assert aggregate.owners[block] == owners
    assert set(aggregate.sums) | set(aggregate.withheld) == set(terms.blocks)


class Rounds:
    """A round taken step by step, so that a test can act as a malicious server."""

    def __init__(self, terms: RoundTerms) -> None:
        self.terms, self.inputs = terms, make_inputs(terms)
        self.clients = {
            name: Client(terms, name, IDENTITIES[name], simulation_randomness(1, name, terms.round))
            for name in NAMES
        }
        self.server = Server(terms)

    def message(self, stage: Stage, name: str, answer: bytes) -> bytes:
        client = self.clients[name]
        steps: dict[Stage, Callable[[], bytes]] = {
            Stage.ADVERTISE_KEYS: client.advertise,
            Stage.SHARE_KEYS: lambda: client.share_keys(answer),
            Stage.MASKED_INPUT: lambda: client.mask(answer, self.inputs[name]),
            Stage.CONSISTENCY_CHECK: lambda: client.confirm(answer),
            Stage.UNMASKING: lambda: client.unmask(answer),
        }
        return steps[stage]()

    def close(self, stage: Stage) -> Mapping[str, bytes]:
        if stage is Stage.SHARE_KEYS:
            return self.server.deliveries()
        steps = {
            Stage.ADVERTISE_KEYS: self.server.roster,
            Stage.MASKED_INPUT: self.server.survivors,
            Stage.CONSISTENCY_CHECK: self.server.confirmations,
        }
        return dict.fromkeys(NAMES, steps[stage]())

    def until(self, last: Stage, lost: Collection[str] = ()) -> Mapping[str, bytes]:
        """Play the stages before `last`; return the answers that open it.

        `lost` send no masked input.
        """
        answers: Mapping[str, bytes] = dict.fromkeys(NAMES, b"")
        for stage in Stage:
            if stage is last:
                return answers
            for name in self.server.expected:
                if name not in lost or stage in (Stage.ADVERTISE_KEYS, Stage.SHARE_KEYS):
                    self.server.receive(self.message(stage, name, answers[name]))
            answers = self.close(stage)
        raise AssertionError


def survivor_list(terms: RoundTerms, masked: Mapping[str, bytes], names: Collection[str]) -> bytes:
    """What a server sends that claims `names` to be the survivors."""
    statements = [
        MaskedInput.from_bytes(frame.unseal(masked[n], Kind.MASKED_INPUT, terms).body).partners
        for n in names
    ]
    return frame.seal(Kind.SURVIVORS, frame.write_list(statements), terms)


def confirmations_of(terms: RoundTerms, sealed: Collection[bytes]) -> bytes:
    return frame.seal(Kind.CONFIRMATIONS, frame.write_list(sealed), terms)


# sums


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("count", range(len(NAMES) - THRESHOLD + 1))
def test_sum_is_exact_with_dropouts_at_every_stage(stage: Stage, count: int) -> None:
    terms = make_terms()
    inputs, lost = make_inputs(terms), NAMES[:count]
    aggregate = run_round(terms, IDENTITIES, inputs, {stage: lost}).aggregate
    uploaded = stage in (Stage.CONSISTENCY_CHECK, Stage.UNMASKING)
    check_sums(terms, inputs, aggregate, NAMES if uploaded else NAMES[count:])
    assert aggregate.dropouts[stage.value] == lost
    assert "fusion" in aggregate.sums


@pytest.mark.parametrize("bits", [8, 11, 16, 23, 24, 31, 32])
def test_sum_is_exact_for_every_width_of_word(bits: int) -> None:
    terms = make_terms(bits=bits)
    inputs = make_inputs(terms)
    lost = {Stage.SHARE_KEYS: NAMES[6:], Stage.MASKED_INPUT: NAMES[:1], Stage.UNMASKING: NAMES[5:6]}
    aggregate = run_round(terms, IDENTITIES, inputs, lost).aggregate
    check_sums(terms, inputs, aggregate, NAMES[1:6])
    assert aggregate.withheld == ()


@pytest.mark.parametrize("stage", list(Stage))
def test_nothing_is_revealed_below_the_threshold(stage: Stage) -> None:
    terms = make_terms()
    lost = {stage: NAMES[: len(NAMES) - THRESHOLD + 1]}
    with pytest.raises(ProtocolError, match=f"3 institutions are left after {stage.value}"):
        run_round(terms, IDENTITIES, make_inputs(terms), lost)


def test_clients_refuse_below_the_threshold_by_themselves() -> None:
    play = Rounds(make_terms())
    sent = [play.clients[name].advertise() for name in NAMES]
    small = frame.seal(Kind.ROSTER, frame.write_list(sent[: THRESHOLD - 1]), play.terms)
    with pytest.raises(ProtocolError, match="only 3 institutions advertised"):
        play.clients[NAMES[0]].share_keys(small)

    play = Rounds(make_terms())
    answers = play.until(Stage.MASKED_INPUT)
    delivery = frame.read_map(frame.unseal(answers[NAMES[0]], Kind.SHARE_DELIVERY, play.terms).body)
    few = frame.write_map({name: delivery[name] for name in NAMES[1 : THRESHOLD - 1]})
    with pytest.raises(ProtocolError, match="only 3 institutions shared"):
        play.clients[NAMES[0]].mask(
            frame.seal(Kind.SHARE_DELIVERY, few, play.terms), play.inputs[NAMES[0]]
        )

    play = Rounds(make_terms())
    answers = play.until(Stage.MASKED_INPUT)
    masked = {n: play.message(Stage.MASKED_INPUT, n, answers[n]) for n in NAMES}
    with pytest.raises(ProtocolError, match="only 3 institutions sent a masked input"):
        play.clients[NAMES[0]].confirm(survivor_list(play.terms, masked, NAMES[:3]))


def test_same_seed_gives_same_bytes_and_other_keys_give_the_same_sum() -> None:
    terms = make_terms()
    inputs = make_inputs(terms)
    first, again = (Rounds(terms).until(Stage.MASKED_INPUT) for _ in range(2))
    assert first == again
    seeded = run_round(
        terms, IDENTITIES, inputs, randomness=lambda name: simulation_randomness(3, name, 0)
    ).aggregate
    fresh = run_round(terms, IDENTITIES, inputs).aggregate
    for block in terms.blocks:
        np.testing.assert_array_equal(seeded.sums[block], fresh.sums[block])


# blocks


def test_a_single_owner_is_reported_as_unprotected() -> None:
    terms = make_terms()
    aggregate = run_round(terms, IDENTITIES, make_inputs(terms)).aggregate
    assert aggregate.unprotected == ("head/medical",)
    assert unprotected_blocks(OWNERS) == ("head/medical",)


def test_a_block_with_too_few_survivors_is_withheld_and_the_others_are_revealed() -> None:
    terms = make_terms()
    inputs = make_inputs(terms)
    lost = NAMES[:3]  # of the four owners of encoder/ct one is left
    aggregate = run_round(terms, IDENTITIES, inputs, {Stage.MASKED_INPUT: lost}).aggregate
    assert aggregate.withheld == ("encoder/ct", "head/medical")
    check_sums(terms, inputs, aggregate, NAMES[3:])

    play = Rounds(terms)
    answers = play.until(Stage.UNMASKING, lost=lost)
    message = play.message(Stage.UNMASKING, NAMES[3], answers[NAMES[3]])
    body = frame.unseal(message, Kind.UNMASKING_SHARES, terms).body
    seeds = UnmaskingShares.from_bytes(body).seeds
    assert set(seeds[NAMES[3]]) == {"encoder/mri", "fusion"}  # and no share for encoder/ct


def test_the_minimum_of_survivors_can_be_raised_to_what_the_noise_assumes() -> None:
    inputs, lost = make_inputs(make_terms()), {Stage.MASKED_INPUT: NAMES[:1]}
    kept = run_round(make_terms(encoder=3), IDENTITIES, inputs, lost).aggregate
    assert kept.withheld == ()
    refused = run_round(make_terms(encoder=4), IDENTITIES, inputs, lost).aggregate
    assert refused.withheld == ("encoder/ct",)


def test_a_block_that_lost_its_owners_before_the_upload_is_not_sent() -> None:
    play = Rounds(make_terms())
    for name in NAMES:
        play.server.receive(play.clients[name].advertise())
    roster = play.server.roster()
    for name in NAMES[3:]:
        play.server.receive(play.clients[name].share_keys(roster))
    delivery = play.server.deliveries()[NAMES[3]]
    masked = play.message(Stage.MASKED_INPUT, NAMES[3], delivery)
    body = frame.unseal(masked, Kind.MASKED_INPUT, play.terms).body
    assert set(MaskedInput.from_bytes(body).blocks) == {"encoder/mri", "fusion"}


# what a malicious server tries


def test_a_client_never_answers_for_two_lists_of_survivors() -> None:
    play = Rounds(make_terms())
    answers = play.until(Stage.MASKED_INPUT)
    masked = {n: play.message(Stage.MASKED_INPUT, n, answers[n]) for n in NAMES}
    lists = [survivor_list(play.terms, masked, names) for names in (NAMES, NAMES[:-1])]
    client = play.clients[NAMES[0]]
    client.confirm(lists[0])
    with pytest.raises(ProtocolError, match="consistency_check where unmasking is due"):
        client.confirm(lists[1])


def test_clients_told_of_different_survivors_do_not_unmask() -> None:
    play = Rounds(make_terms())
    answers = play.until(Stage.MASKED_INPUT)
    masked = {n: play.message(Stage.MASKED_INPUT, n, answers[n]) for n in NAMES}
    victim = NAMES[6]
    alive, dropped = (survivor_list(play.terms, masked, n) for n in (NAMES, NAMES[:-1]))
    told = {n: alive if n in NAMES[:3] else dropped for n in NAMES if n != victim}
    told[victim] = alive
    sealed = {n: play.clients[n].confirm(answer) for n, answer in told.items()}
    with pytest.raises(ProtocolError, match="confirmed other survivors"):
        play.clients[NAMES[0]].unmask(confirmations_of(play.terms, tuple(sealed.values())))
    minority = confirmations_of(play.terms, tuple(sealed[n] for n in NAMES[3:6]))
    with pytest.raises(ProtocolError, match="only 3 institutions confirmed"):
        play.clients[NAMES[3]].unmask(minority)
    # The control: those who were told the same reveal the victim's seeds, not its mask key.
    majority = confirmations_of(play.terms, tuple(sealed[n] for n in (*NAMES[:3], victim)))
    answer = play.clients[NAMES[1]].unmask(majority)
    body = frame.unseal(answer, Kind.UNMASKING_SHARES, play.terms).body
    shares = UnmaskingShares.from_bytes(body)
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
    names = frame.write_list(name.encode() for name in NAMES[:6])
    sealed = {n: play.message(Stage.CONSISTENCY_CHECK, n, answers[n]) for n in NAMES[:3]}
    vouched = frame.seal(Kind.CONFIRMATION, names, play.terms, late, IDENTITIES[late])
    with pytest.raises(ProtocolError, match="had dropped out before"):
        play.server.receive(vouched)
    with pytest.raises(ProtocolError, match="without being one"):
        play.clients[NAMES[0]].unmask(confirmations_of(play.terms, (*sealed.values(), vouched)))


def test_who_never_shared_its_keys_is_no_survivor() -> None:
    play = Rounds(make_terms())
    absent, present = NAMES[6], NAMES[:6]
    for name in NAMES:
        play.server.receive(play.clients[name].advertise())
    roster = play.server.roster()
    for name in present:
        play.server.receive(play.clients[name].share_keys(roster))
    deliveries = play.server.deliveries()
    masked = {n: play.message(Stage.MASKED_INPUT, n, deliveries[n]) for n in present}
    names = frame.write_list(name.encode() for name in present)
    statement = frame.seal(Kind.PARTNERS, names, play.terms, absent, IDENTITIES[absent])
    true = survivor_list(play.terms, masked, present)
    items = frame.read_list(frame.unseal(true, Kind.SURVIVORS, play.terms).body)
    longer = frame.seal(Kind.SURVIVORS, frame.write_list([*items, statement]), play.terms)
    with pytest.raises(ProtocolError, match="without having shared its keys"):
        play.clients[NAMES[0]].confirm(longer)
    play.clients[NAMES[1]].confirm(true)


def test_a_list_of_partners_cut_for_one_victim_is_found_out() -> None:
    """Shown no other owner of encoder/ct but one, a victim's block would lose its cover."""
    play = Rounds(make_terms())
    answers = dict(play.until(Stage.MASKED_INPUT))
    victim = NAMES[0]
    delivery = frame.read_map(frame.unseal(answers[victim], Kind.SHARE_DELIVERY, play.terms).body)
    kept = {name: data for name, data in delivery.items() if name not in NAMES[1:3]}
    answers[victim] = frame.seal(Kind.SHARE_DELIVERY, frame.write_map(kept), play.terms)
    masked = {n: play.message(Stage.MASKED_INPUT, n, answers[n]) for n in NAMES}
    with pytest.raises(ProtocolError, match="masked with other partners"):
        play.server.receive(masked[victim])  # an honest server notices as well
    with pytest.raises(ProtocolError, match="was shown other partners"):
        play.clients[NAMES[4]].confirm(survivor_list(play.terms, masked, NAMES))


@pytest.mark.parametrize("stage", list(Stage))
def test_an_altered_message_is_refused_and_the_true_one_then_taken(stage: Stage) -> None:
    play = Rounds(make_terms())
    answers = play.until(stage)
    name = NAMES[2]
    message = play.message(stage, name, answers[name])
    for position in np.linspace(0, len(message) - 1, 23).astype(int):
        altered = bytearray(message)
        altered[position] ^= 0x10
        with pytest.raises(ProtocolError):
            play.server.receive(bytes(altered))
    with pytest.raises(ProtocolError):
        play.server.receive(message[:-1])
    play.server.receive(message)
    with pytest.raises(ProtocolError, match="a second"):
        play.server.receive(message)


@pytest.mark.parametrize("stage", list(Stage)[1:])
def test_an_altered_answer_of_the_server_is_refused(stage: Stage) -> None:
    for fraction in (0.3, 0.6, 0.95):
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
    with pytest.raises(ProtocolError, match="takes no part"):
        Server(terms).receive(
            frame.seal(Kind.ADVERTISEMENT, body, terms, "stranger", Identity(bytes(32)))
        )
    with pytest.raises(InputError, match="identity"):
        Client(terms, NAMES[0], IDENTITIES[NAMES[1]])


def test_the_roster_must_hold_the_clients_own_keys_and_each_key_once() -> None:
    play = Rounds(make_terms())
    sent = {name: play.clients[name].advertise() for name in NAMES}
    twin = Client(play.terms, NAMES[0], IDENTITIES[NAMES[0]])  # keys that the victim never drew
    other = frame.write_list([twin.advertise(), *(sent[n] for n in NAMES[1:])])
    with pytest.raises(ProtocolError, match="other keys of site-0"):
        play.clients[NAMES[0]].share_keys(frame.seal(Kind.ROSTER, other, play.terms))
    body = frame.unseal(sent[NAMES[2]], Kind.ADVERTISEMENT, play.terms).body
    copied = frame.seal(Kind.ADVERTISEMENT, bytes(body), play.terms, NAMES[3], IDENTITIES[NAMES[3]])
    twice = frame.write_list([copied if n == NAMES[3] else sent[n] for n in NAMES])
    with pytest.raises(ProtocolError, match="twice"):
        play.clients[NAMES[1]].share_keys(frame.seal(Kind.ROSTER, twice, play.terms))


def test_a_key_of_small_order_is_refused() -> None:
    with pytest.raises(ProtocolError, match="can't be used"):
        KeyPair(bytes(range(32))).agree(bytes(32))


@pytest.mark.parametrize("lost", [(), NAMES[6:]], ids=["seed", "mask key"])
def test_a_wrong_share_of_a_member_never_gives_a_wrong_sum(lost: tuple[str, ...]) -> None:
    play = Rounds(make_terms())
    answers = play.until(Stage.UNMASKING, lost)
    liar = play.clients[NAMES[0]]
    target = NAMES[6] if lost else NAMES[5]
    shares = liar._shares[target]
    liar._shares[target] = Shares(bytes(33), dict.fromkeys(shares.seeds, bytes(33)))
    for name in play.server.expected:
        play.server.receive(play.message(Stage.UNMASKING, name, answers[name]))
    with pytest.raises(ProtocolError, match=f"shares .*{target}"):
        play.server.aggregate()


# what the server sees


def excess_chi_square(words: Modular) -> float:
    """Return how many standard deviations the bytes' chi-square lies from that of uniform ones."""
    counts = np.bincount(words.view(np.uint8), minlength=256)
    expected = counts.sum() / 256
    return float((((counts - expected) ** 2 / expected).sum() - 255) / np.sqrt(2 * 255))


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_each_masked_vector_looks_uniform_and_an_unmasked_one_does_not(bits: int) -> None:
    size = 40_000
    terms = RoundTerms(
        session="view",
        round=0,
        threshold=2,
        modulus_bits=bits,
        identities={name: IDENTITIES[name].public for name in NAMES[:3]},
        blocks={"fusion": BlockTerms(size, NAMES[:3])},
    )
    generator = rng.generator(0, "updates")
    coding = FixedPoint.fit(1.0, bits, clients=3)
    plain = {
        name: coding.encode(generator.normal(0, 0.1, size).astype(np.float32), generator)
        for name in NAMES[:3]
    }
    clients = {
        n: Client(terms, n, IDENTITIES[n], simulation_randomness(5, n, 0)) for n in NAMES[:3]
    }
    server = Server(terms)
    for client in clients.values():
        server.receive(client.advertise())
    roster = server.roster()
    for client in clients.values():
        server.receive(client.share_keys(roster))
    deliveries = server.deliveries()
    for name, client in clients.items():
        message = client.mask(deliveries[name], {"fusion": plain[name]})
        body = frame.unseal(message, Kind.MASKED_INPUT, terms).body
        words = unpack(MaskedInput.from_bytes(body).blocks["fusion"], size, bits)
        assert abs(excess_chi_square(words)) < 5
        assert excess_chi_square(plain[name]) > 100
        difference = (words - plain[name]).astype(words.dtype)
        assert abs(excess_chi_square(difference)) < 5
        assert plain[name].tobytes()[1000:1032] not in message
        server.receive(message)
        # The running sum stays masked too, until the clients answer.
        assert abs(excess_chi_square(server._sums["fusion"])) < 5


def test_the_vector_of_a_dropout_that_comes_late_stays_hidden() -> None:
    """Its mask key is known by then; its own mask is what still covers it."""
    size, late, names = 40_000, NAMES[0], NAMES[:3]
    terms = RoundTerms(
        session="late",
        round=0,
        threshold=2,
        modulus_bits=16,
        identities={name: IDENTITIES[name].public for name in names},
        blocks={"fusion": BlockTerms(size, names)},
    )
    secrets = {
        n: RoundSecrets.draw(terms, n, simulation_randomness(6, n, 0)) for n in terms.identities
    }
    roster = {name: item.advertisement() for name, item in secrets.items()}
    plain = np.full(size, 3, dtype=np.uint16)
    packed = secrets[late].mask({"fusion": plain}, roster)["fusion"]
    words = unpack(packed, size, 16).copy()
    for peer in names[1:]:
        agreed = secrets[late].mask_keys.agree(roster[peer].mask_key)
        add_streams(words, [pair_stream(agreed, terms.digest, "fusion", -1)])
    assert abs(excess_chi_square(words)) < 5
    seed = secrets[late].seeds["fusion"]
    add_streams(words, [self_stream(seed, terms.digest, late, "fusion", -1)])
    np.testing.assert_array_equal(words, plain)


# parts


def test_no_two_streams_share_a_key() -> None:
    secret, terms = b"s" * 32, (b"a" * 32, b"b" * 32)
    keys = [pair_stream(secret, digest, block, 1).key for digest in terms for block in "xy"]
    keys += [
        self_stream(secret, digest, owner, block).key
        for digest in terms
        for owner in "uv"
        for block in "xy"
    ]
    assert len(set(keys)) == len(keys) == 12


def test_streams_run_on_across_chunks_and_cancel() -> None:
    size = 150_001
    start = rng.generator(0, "start").integers(0, 2**32, size, dtype=np.uint32)
    words = start.copy()
    add_streams(words, [Stream(b"k" * 16, 1)])
    cipher = Cipher(algorithms.AES(b"k" * 16), modes.CTR(bytes(16))).encryptor()
    keystream = np.frombuffer(cipher.update(bytes(4 * size)), dtype="<u4")
    np.testing.assert_array_equal(words, start + keystream)
    add_streams(words, [Stream(b"k" * 16, -1)])
    np.testing.assert_array_equal(words, start)


@pytest.mark.parametrize("bits", range(8, 33))
@pytest.mark.parametrize("size", [1, 7, 64])
def test_packing_takes_no_bit_too_many_and_comes_back(bits: int, size: int) -> None:
    words = rng.generator(0, "words", bits).integers(0, 1 << bits, size, dtype=np.uint64)
    packed = pack(words.astype(word_dtype(bits)), bits)
    assert len(packed) == packed_bytes(size, bits) <= -(-size * bits // 8) + 2
    np.testing.assert_array_equal(unpack(packed, size, bits), words)
    with pytest.raises(ProtocolError, match="do not hold"):
        unpack(bytes(packed) + b"\0", size, bits)


def test_the_field_of_the_shares_is_one() -> None:
    exponent = PRIME - 1
    twos = (exponent & -exponent).bit_length() - 1
    for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):
        value = pow(base, exponent >> twos, PRIME)
        seen = [value]
        for _ in range(twos - 1):
            seen.append(seen[-1] ** 2 % PRIME)
        assert value == 1 or PRIME - 1 in seen  # Miller-Rabin
    assert PRIME > 2**256


def test_shares_below_the_threshold_or_out_of_the_field_are_refused() -> None:
    shares = split(b"s" * 32, 3, [1, 2, 3, 4], rng.generator(0, "shamir").bytes)
    assert combine(shares, 3) == b"s" * 32
    with pytest.raises(ProtocolError, match="too few"):
        combine({1: shares[1], 2: shares[2]}, 3)
    with pytest.raises(ProtocolError, match="field"):
        combine(shares | {1: b"\xff" * 33}, 3)
    for secret, threshold, points in (
        (b"s", 2, [1, 2]),
        (b"s" * 32, 3, [1, 2]),
        (b"s" * 32, 1, [0]),
    ):
        with pytest.raises(InputError):
            split(secret, threshold, points, rng.generator(0, "shamir").bytes)


def test_threshold_grows_with_those_who_collude() -> None:
    assert [minimum_threshold(n) for n in (2, 3, 14, 15)] == [2, 2, 8, 8]
    assert minimum_threshold(15, colluding=4) == 10


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"threshold": 3}, "threshold"),
        ({"threshold": 8}, "threshold"),
        ({"modulus_bits": 7}, "modulus_bits"),
        ({"modulus_bits": 33}, "modulus_bits"),
        ({"round": -1}, "round"),
        ({"identities": {"a": bytes(32)}}, "institutions"),
        ({"identities": dict.fromkeys(NAMES, bytes(32))}, "identities"),
        ({"blocks": {"b": BlockTerms(0, NAMES)}}, "blocks.b.size"),
        ({"blocks": {"b": BlockTerms(1, ())}}, "blocks.b.owners"),
        ({"blocks": {"b": BlockTerms(1, ("x",))}}, "blocks.b.owners"),
        ({"blocks": {"b": BlockTerms(1, NAMES[:2], 3)}}, "blocks.b.minimum_survivors"),
    ],
)
def test_bad_terms_are_named(change: dict[str, object], field: str) -> None:
    good = make_terms()
    values = {name: getattr(good, name) for name in good.__dataclass_fields__}
    with pytest.raises(InputError) as caught:
        RoundTerms(**(values | change))
    assert caught.value.field == field


def test_inputs_that_are_not_the_clients_blocks_are_named() -> None:
    play = Rounds(make_terms(bits=12))
    answers = play.until(Stage.MASKED_INPUT)
    name = NAMES[0]
    good = play.inputs[name]
    for bad in (
        {"fusion": good["fusion"]},
        good | {"fusion": good["fusion"][:-1]},
        good | {"fusion": good["fusion"].astype(np.uint32)},
        good | {"fusion": good["fusion"] | np.uint16(1 << 12)},
    ):
        with pytest.raises(InputError, match="inputs"):
            play.clients[name].mask(answers[name], bad)
    play.clients[name].mask(answers[name], good)


def test_secrets_are_not_shown() -> None:
    keys = KeyPair(b"\x07" * 32)
    client = Client(make_terms(), NAMES[0], IDENTITIES[NAMES[0]])
    shown = repr(keys) + repr(IDENTITIES[NAMES[0]]) + repr(client._secrets)
    for secret in (keys.private, IDENTITIES[NAMES[0]].private, client._secrets.mask_keys.private):
        assert secret.hex() not in shown
        assert repr(secret) not in shown


# quantization


def test_an_encoding_whose_sum_could_wrap_is_refused() -> None:
    assert FixedPoint.fit(1.0, 8, clients=15).levels == 8
    assert FixedPoint.fit(1.0, 12, clients=15, value_bits=8).levels == 127
    with pytest.raises(InputError, match="wrap around"):
        FixedPoint.fit(1.0, 11, clients=15, value_bits=8)
    for clip in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="clip"):
            FixedPoint.fit(clip, 16, clients=2)
    with pytest.raises(InputError, match="levels"):
        FixedPoint.fit(1.0, 8, clients=200)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_update_that_is_not_finite_is_refused(bad: float) -> None:
    vector = np.array([0.0, bad], dtype=np.float32)
    with pytest.raises(InputError, match="finite"):
        FixedPoint.fit(1.0, 16, clients=2).encode(vector, rng.generator(0, "encode"))


def test_rounding_is_unbiased_and_rounding_to_nearest_would_not_be() -> None:
    coding = FixedPoint.fit(1.0, 8, clients=15)
    value = np.float32(0.3 * coding.step)
    vector = np.full(50_000, value, dtype=np.float32)
    decoded = coding.decode(coding.encode(vector, rng.generator(0, "encode")), clients=1)

    def deviations(mean: float) -> float:
        spread = coding.step * float(np.sqrt(0.3 * 0.7 / vector.size))
        return abs(mean - float(value)) / spread

    assert deviations(float(decoded.mean())) < 5
    assert deviations(float(np.round(value / coding.step) * coding.step)) > 100


def test_the_largest_sum_fits_and_one_more_client_is_refused() -> None:
    coding = FixedPoint.fit(2.0, 8, clients=15)
    vector = np.array([9.0, -9.0], dtype=np.float32)
    words = coding.encode(vector, rng.generator(0, "encode"))
    total = (words * np.uint8(15)).astype(np.uint8)
    np.testing.assert_allclose(coding.decode(total, clients=15), [30.0, -30.0], rtol=1e-6)
    with pytest.raises(InputError, match="clients"):
        coding.decode(total, clients=16)


def test_signed_integers_come_back() -> None:
    values = np.array([-2048, -1, 0, 1, 2047], dtype=np.int64)
    np.testing.assert_array_equal(from_modular(to_modular(values, 12), 12), values)
    assert from_modular(to_modular(np.array([2048]), 12), 12)[0] == -2048


def test_the_public_names_are_exact() -> None:
    public = {
        name
        for name, value in vars(secure_aggregation).items()
        if not name.startswith("_") and getattr(value, "__name__", "").count(".") == 0
    }
    modules = {"client", "envelope", "keys", "masking", "messages", "packing", "quantization"}
    modules |= {"round", "round_secrets", "server", "shamir", "terms", "unmasking"}
    assert public - modules == set(secure_aggregation.__all__)
