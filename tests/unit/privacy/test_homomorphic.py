"""Sums on ciphertexts: exact in fixed point, unreadable without the secret key."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from fedfuse_ray.errors import FedfuseError, InputError, ProtocolError
from fedfuse_ray.privacy.mechanisms import homomorphic
from fedfuse_ray.privacy.mechanisms.homomorphic import (
    LARGEST_SUM,
    SLOTS,
    STEP,
    KeyPair,
    PublicKey,
    fixed_point,
    from_fixed_point,
)

pytest.importorskip("tenseal")


@pytest.fixture(scope="module")
def keys():
    return KeyPair()


@pytest.fixture(scope="module")
def key(keys):
    return PublicKey.read(keys.public)


def vectors(count, size, largest=1.0):
    generator = np.random.default_rng(size)
    return [
        (largest * generator.uniform(-1, 1, size)).astype(np.float32).clip(-largest, largest)
        for _ in range(count)
    ]


def summed(key, words):
    total = key.load(key.encrypt(words[0]), words[0].size)
    for one in words[1:]:
        total.add(key.load(key.encrypt(one), one.size))
    return total.dump()


@pytest.mark.parametrize("size", [1, 100, SLOTS, SLOTS + 1, 2 * SLOTS + 7])
def test_the_decrypted_sum_is_the_sum_of_integers_to_the_bit(keys, key, size):
    # As large as fifteen may be together, where the noise of CKKS is relative to them.
    updates = vectors(15, size, 0.99 * LARGEST_SUM * STEP / 15)
    words = [fixed_point(vector, 15) for vector in updates]
    opened = keys.decrypt(summed(key, words), size)
    np.testing.assert_array_equal(opened, sum(words))
    exact = np.sum([v.astype(np.float64) for v in updates], axis=0)
    assert np.abs(opened * STEP - exact).max() <= 15 * STEP / 2
    np.testing.assert_allclose(from_fixed_point(opened), exact, atol=15 * STEP, rtol=1e-6)


def test_another_encryption_differs_and_says_the_same_in_as_many_bytes(keys, key):
    words = fixed_point(vectors(1, 300)[0], 1)
    one, two = key.encrypt(words), key.encrypt(words)
    assert one != two
    assert len(one) == len(two)
    assert len(keys.public) == len(KeyPair().public)
    np.testing.assert_array_equal(keys.decrypt(one, 300), keys.decrypt(two, 300))


def test_the_public_key_can_not_decrypt(keys, key):
    payload = key.encrypt(fixed_point(vectors(1, 10)[0], 1))
    assert not key.context.is_private()
    with pytest.raises(ValueError, match="secret_key"):
        key.load(payload, 10).vectors[0].decrypt()
    # What the holder has can, so the check above is not about a broken ciphertext.
    assert keys._context.is_private()
    assert keys.decrypt(payload, 10).size == 10


def test_a_stranger_reads_noise(key):
    payload = key.encrypt(fixed_point(vectors(1, 10)[0], 1))
    with pytest.raises(FedfuseError):
        KeyPair().decrypt(payload, 10)


def test_a_published_secret_key_is_refused(keys):
    told = homomorphic._padded(keys._context.serialize(save_secret_key=True))
    with pytest.raises(ProtocolError, match="secret"):
        PublicKey.read(told)


@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "size", "length"])
def test_broken_ciphertexts_are_refused(key, damage):
    payload, size = key.encrypt(fixed_point(vectors(1, 10)[0], 1)), 10
    if damage == "cut":
        payload = payload[:-600]
    elif damage == "empty":
        payload = b""
    elif damage == "noise":
        payload = homomorphic._padded(bytes(range(256)) * 20)
    elif damage == "size":
        size = 11
    else:
        payload += b"ab"
    with pytest.raises(ProtocolError):
        key.load(payload, size)


@pytest.mark.parametrize("value", [np.nan, np.inf, LARGEST_SUM * STEP / 3])
def test_entries_whose_sum_could_overflow_are_refused(value):
    with pytest.raises(InputError, match="lower the learning rate"):
        fixed_point(np.array([0.0, value], np.float32), 3)


def test_without_tenseal_the_remedy_is_named(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(InputError, match=r"compression.encryption.*fedfuse-ray\[he\]"):
        homomorphic.require()
