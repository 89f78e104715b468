"""Keys: pairs that agree on a secret, and the keys derived from an agreement.

All of it comes from `cryptography`: X25519 (RFC 7748), HKDF-SHA256 (RFC 5869) and AES-128-GCM.
Every derivation is salted with the digest of the round's terms, so that no key of one round is ever
one of another.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.privacy.identities import KEY_BYTES

TAG_BYTES = 16
_NONCE = bytes(12)
_CIPHER_KEY_BYTES = 16


@dataclass(frozen=True)
class KeyPair:
    """An X25519 key pair that lives for one round."""

    private: bytes

    @classmethod
    def of_secret(cls, secret: bytes, terms: bytes, owner: str) -> KeyPair:
        """Derive the pair behind an owner's pairwise masks from its 16-byte secret.

        Args:
            secret: 16 uniform bytes, which are what is secret-shared.
            terms: Digest of the round's terms.
            owner: Whose pair it is.

        Formal guarantees:
            A uniform secret gives, with HKDF as a random oracle, a pair that can't be told from a
            fresh one in less than the 2^128 trials that finding an AES-128 key takes; the best
            attack on X25519 itself takes as many steps. Digest and owner go in as well, so trials
            serve one institution of one round only.
        """
        return cls(derive_key(secret, terms, "mask key", owner, length=KEY_BYTES))

    @property
    def public(self) -> bytes:
        """The 32-byte public key."""
        return self._key.public_key().public_bytes_raw()

    def agree(self, public: bytes) -> bytes:
        """Return the 32-byte secret shared with the owner of `public`.

        Raises:
            ProtocolError: `public` is no key, or one of small order that would fix the secret.
        """
        try:
            peer = X25519PublicKey.from_public_bytes(public)
            return self._key.exchange(peer)
        except ValueError as error:
            raise ProtocolError(f"a public key can't be used: {error}") from None

    @cached_property
    def _key(self) -> X25519PrivateKey:
        return X25519PrivateKey.from_private_bytes(self.private)

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public.hex()})"


def derive_key(secret: bytes, salt: bytes, label: str, *names: str, length: int) -> bytes:
    """Return HKDF-SHA256 of the secret under a label and names, which can't run into each other."""
    info = b"".join(_prefixed(text) for text in (label, *names))
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(secret)


@dataclass(frozen=True)
class ShareChannel:
    """The authenticated encryption of one sender's shares for one recipient.

    Formal guarantees:
        The nonce is always zero and does not travel. AES-GCM forbids two messages under one key and
        nonce, and here a key has one message: it is derived from the agreement of two key pairs
        drawn afresh for the round, by way of the round's digest, sender and recipient, and a sender
        takes the step that encrypts once, with one message for each recipient. A sender that starts
        a round anew draws new keys.
    """

    key: bytes
    context: bytes

    @classmethod
    def between(cls, agreed: bytes, terms: bytes, sender: str, recipient: str) -> ShareChannel:
        """Derive the channel from the pair's agreed secret and the digest of the round's terms."""
        key = derive_key(agreed, terms, "shares", sender, recipient, length=_CIPHER_KEY_BYTES)
        return cls(key, terms + _joined((sender, recipient)))

    def encrypt(self, plain: bytes) -> bytes:
        """Return the ciphertext with its tag, 16 bytes more than the plaintext; call this once."""
        return AESGCM(self.key).encrypt(_NONCE, plain, self.context)

    def decrypt(self, sealed: bytes) -> bytes:
        """Return what was encrypted.

        Raises:
            ProtocolError: It was altered, or is of another sender, recipient or round.
        """
        try:
            return AESGCM(self.key).decrypt(_NONCE, sealed, self.context)
        except (InvalidTag, ValueError):
            raise ProtocolError("encrypted shares were altered or are not of this round") from None


def _prefixed(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(4, "little") + data


def _joined(names: Iterable[str]) -> bytes:
    return b"".join(_prefixed(name) for name in names)
