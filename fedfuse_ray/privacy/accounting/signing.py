"""Keys that sign what a run leaves behind: made for one run, or the user's own.

Ed25519 (RFC 8032), in the PEM files that OpenSSL reads and writes. A run's own key comes from the
operating system and not from the run's seed: everybody who knows the seed could sign, too. The key
affects nothing but the signature.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedfuse_ray.errors import InputError
from fedfuse_ray.privacy.identities import Identity

_FINGERPRINT = re.compile("[0-9a-f]{64}")


def fingerprint(public: bytes) -> str:
    """Return the SHA-256 of a 32-byte public key, hex: what people compare."""
    return hashlib.sha256(public).hexdigest()


def read_private(path: Path, field: str) -> Identity:
    """Read a private key.

    Raises:
        InputError: No unencrypted Ed25519 private key is there; `field` says who named the file.
    """
    remedy = "name an unencrypted key file of `openssl genpkey -algorithm ed25519 -out FILE`"
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        raise InputError(field, path, remedy) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(field, path, remedy)
    return Identity(key.private_bytes_raw())


def make_private(path: Path) -> Identity:
    """Draw a key and write it to a file that only its owner may read; an older one is replaced."""
    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(text)
    return Identity(key.private_bytes_raw())


def read_fingerprint(text: str, field: str) -> str:
    """Return a fingerprint that is given as such, or as the file of a public key.

    Raises:
        InputError: It is neither; `field` says where it was given.
    """
    if _FINGERPRINT.fullmatch(text):
        return text
    remedy = "give the 64 hex digits that `run` printed, or the file of an Ed25519 public key (PEM)"
    try:
        key = serialization.load_pem_public_key(Path(text).read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm):
        raise InputError(field, text, remedy) from None
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(field, text, remedy)
    return fingerprint(key.public_bytes_raw())
