"""Identities that sign: who sent a message of secure aggregation, who left a result folder.

Ed25519 (RFC 8032), from `cryptography`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ByteSource = Callable[[int], bytes]
"""Called with a number of bytes, returns that many. Real secrets need `os.urandom`."""

KEY_BYTES = 32
SIGNATURE_BYTES = 64


@dataclass(frozen=True)
class Identity:
    """A long-lived signing key; its public half is known to all out of band.

    >>> signer = Identity(bytes(32))
    >>> verify(signer.public, signer.sign(b"update"), b"update")
    True
    >>> verify(signer.public, signer.sign(b"update"), b"another")
    False
    """

    private: bytes

    @classmethod
    def generate(cls, randomness: ByteSource = os.urandom) -> Identity:
        """Draw a fresh identity."""
        return cls(randomness(KEY_BYTES))

    @property
    def public(self) -> bytes:
        """The 32-byte Ed25519 public key."""
        return self._key.public_key().public_bytes_raw()

    def sign(self, data: bytes) -> bytes:
        """Return the 64-byte signature of `data`."""
        return self._key.sign(data)

    @cached_property
    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.private)

    def __repr__(self) -> str:
        return f"Identity(public={self.public.hex()})"  # never the private half, as in a log


def verify(public: bytes, signature: bytes, data: bytes) -> bool:
    """Return whether the identity with this public key signed `data`."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True
