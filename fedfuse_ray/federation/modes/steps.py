"""The steps of a round in which the server learns sums alone."""

from __future__ import annotations

MASK = "mask"
MASKED = ("advertise", "share keys", MASK, "confirm", "unmask")
"""Secure aggregation: `secure_round`."""

PUBLISH, ENCRYPT, DECRYPT = "publish key", "encrypt", "decrypt"
ENCRYPTED = (PUBLISH, ENCRYPT, DECRYPT)
"""Sums on ciphertexts: `encrypted_round`."""

UPDATE = frozenset({MASK, ENCRYPT})
"""The steps in which institutions train and send their update."""
