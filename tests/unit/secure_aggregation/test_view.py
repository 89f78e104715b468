"""Secure aggregation: what the server sees is noise until the masks are out."""

from __future__ import annotations

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedfuse_ray import rng
from fedfuse_ray.packing import unpack
from fedfuse_ray.privacy.secure_aggregation import (
    BlockTerms,
    Client,
    Modular,
    RoundTerms,
    Server,
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
from fedfuse_ray.privacy.secure_aggregation.messages import MaskedInput
from fedfuse_ray.privacy.secure_aggregation.round_secrets import RoundSecrets
from tests.support.privacy.fixed_point import FixedPoint
from tests.support.privacy.secure_rounds import IDENTITIES, NAMES, make_terms, simulation_randomness


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
        words = unpack(MaskedInput.from_bytes(body, terms, name).blocks["fusion"], size, bits)
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


def test_mask_keys_come_from_a_secret_a_round_and_an_owner() -> None:
    digests = [make_terms(round=round).digest for round in (0, 1)]
    pairs = {
        KeyPair.of_secret(secret, digest, owner).public
        for secret in (b"s" * 16, b"t" * 16)
        for digest in digests
        for owner in NAMES[:2]
    }
    assert len(pairs) == 8
    assert KeyPair.of_secret(b"s" * 16, digests[0], NAMES[0]).public in pairs


def test_secrets_are_not_shown() -> None:
    keys = KeyPair(b"\x07" * 32)
    client = Client(make_terms(), NAMES[0], IDENTITIES[NAMES[0]])
    shown = repr(keys) + repr(IDENTITIES[NAMES[0]]) + repr(client._secrets)
    hidden = (keys.private, IDENTITIES[NAMES[0]].private, client._secrets.mask_secret)
    for secret in (*hidden, client._secrets.mask_keys.private):
        assert secret.hex() not in shown
        assert repr(secret) not in shown
