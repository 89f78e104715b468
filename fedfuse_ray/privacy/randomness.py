"""Where the randomness of privacy comes from: noise, samples, keys and masks.

It has a root of its own, apart from the seed's streams for data and models (`fedfuse_ray.rng`).
HMAC-SHA256 under the root names a 256-bit key for every use; ChaCha20 expands it (RFC 8439; the
`randomgen` library). A name holds the round, the sender, and *what is being protected*: the
incoming weights, and for noise the sender's own message before noise.

So two releases share noise only if they are the same release, on whatever machine or kernel they
were computed. Otherwise the difference of two releases with one noise Z would be the difference of
what it protects: U1 = S + s1 Z and U2 = S + s2 Z give S = (s1 U2 - s2 U1) / (s1 - s2).

Formal guarantees:
    To whoever does not know the root, streams under different names are independent uniform bits,
    if HMAC-SHA256 is a pseudorandom function and ChaCha20 a pseudorandom generator. To whoever
    knows it, nothing is random: `derived` holds only against those who have not the seed.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from randomgen import ChaCha

from fedfuse_ray.errors import FedfuseError

ROOT_BYTES = 32
Key = str | int


@dataclass(frozen=True)
class Randomness:
    """All randomness of one run's privacy.

    Attributes:
        root: 32 bytes; secret.
        context: Digest of what later streams depend on besides their names.
    """

    root: bytes = field(repr=False)
    context: bytes = b""

    def __post_init__(self) -> None:
        if len(self.root) != ROOT_BYTES:
            raise FedfuseError(f"a root of privacy's randomness has {ROOT_BYTES} bytes")

    def given(self, *facts: bytes) -> Randomness:
        """Return the randomness that depends on some facts, such as a digest of weights, too."""
        return replace(self, context=_digest(self.context, *facts))

    def stream(self, purpose: str, *keys: Key, message: bytes = b"") -> np.random.Generator:
        """Return the generator of one use.

        Args:
            purpose: What it is for.
            *keys: Round, sender, block, step: no two uses have the same.
            message: What the stream's noise will hide, or a digest of it.
        """
        key = int.from_bytes(self._key(purpose, keys, message), "little")
        return np.random.Generator(ChaCha(key=key, rounds=20))

    def source(self, purpose: str, *keys: Key) -> Callable[[int], bytes]:
        """Return a source of secret bytes, for keys: called with a number, it returns as many."""
        return self.stream(purpose, *keys).bytes

    def _key(self, purpose: str, keys: tuple[Key, ...], message: bytes) -> bytes:
        named = [purpose, *(str(k) if isinstance(k, str) else int(k) for k in keys)]
        info = _digest(repr(named).encode(), self.context, message)
        return hmac.digest(self.root, info, "sha256")


def derived(seed: int, *facts: bytes) -> Randomness:
    """Return randomness that follows from the seed and from what is run.

    Args:
        seed: The run's seed; whoever has it knows all the noise.
        facts: Digests of the configuration, the package's version and the data.
    """
    root = hmac.digest(f"fedfuse_ray privacy {seed}".encode(), _digest(*facts), "sha256")
    return Randomness(root)


def secret() -> Randomness:
    """Return randomness from the operating system, which nobody can name again."""
    return Randomness(os.urandom(ROOT_BYTES))


def digest_of(vectors: Mapping[str, npt.NDArray[np.generic]]) -> bytes:
    """Return the digest of named arrays, such as weights or a message before noise."""
    parts = []
    for name in sorted(vectors):
        array = np.ascontiguousarray(vectors[name])
        parts += [f"{name} {array.dtype.str} {array.shape}".encode(), array.tobytes()]
    return _digest(*parts)


def _digest(*parts: bytes) -> bytes:
    """Return SHA-256 over parts that can't run into each other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()
