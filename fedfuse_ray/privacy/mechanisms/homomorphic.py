"""Sums on ciphertexts: CKKS by TenSEAL, used for fixed-point numbers so that sums come out exactly.

CKKS (Cheon, Kim, Kim and Song, 2017, doi 10.1007/978-3-319-70694-8_15) computes approximately: a
decrypted sum is off by noise that differs each time. Here every entry is an integer, a multiple of
`STEP`, and the scale leaves that noise far below one half, so rounding gives the integer sum
itself. That is what "the same seed, the same result" needs. It also hides that noise from those who
get the sum; from the noise the secret key could be computed (Li and Micciancio, 2021, doi
10.1007/978-3-030-77870-5_23).

TenSEAL draws keys and encryption noise from the operating system, never from a seed, so ciphertexts
differ from run to run. They are padded, so that at least their lengths do not.

Formal guarantees: IND-CPA at 128 bits, by the Homomorphic Encryption Standard's bound of 109 bits
of modulus at degree 4096. Whoever has the secret key reads single updates too, given their
ciphertexts. This is encryption, not differential privacy: the sum itself is protected from nobody
who gets it.
"""

from __future__ import annotations

import importlib
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedfuse_ray.blocks import Vector
from fedfuse_ray.errors import FedfuseError, InputError, ProtocolError

Integers = npt.NDArray[np.int64]

STEP = 2.0**-20
"""The grid of what is summed; an entry is off by half of it at most."""

LARGEST_SUM = 2**26
"""Sums are smaller than this many steps, half of what the modulus holds."""

_DEGREE, _MODULI, _SCALE = 4096, (54, 55), 2.0**26
SLOTS = _DEGREE // 2
"""Entries of one ciphertext."""

_LENGTH = struct.Struct("<I")
_PADDED_TO = 512


def require() -> Any:
    """Return the module `tenseal`.

    Raises:
        InputError: It can't be imported here, as on a node of a cluster that lacks it.
    """
    try:
        return importlib.import_module("tenseal")
    except ImportError as error:
        remedy = f"needs TenSEAL on every node: pip install 'fedfuse-ray[he]' ({error})"
        raise InputError("compression.encryption", "ckks", remedy) from None


def fixed_point(vector: Vector, senders: int) -> Integers:
    """Return a vector in steps, rounded.

    Args:
        vector: float32 [size].
        senders: How many vectors may be summed.

    Raises:
        InputError: An entry is not finite, or so large that the sum could overflow.
    """
    peak = float(np.max(np.abs(vector), initial=0.0))
    if not peak / STEP < LARGEST_SUM / senders - 1:
        raise InputError(
            "update",
            f"an entry of {peak:g}",
            f"{senders} of them must add up to less than {LARGEST_SUM * STEP:g}: lower the "
            "learning rate",
        )
    return np.rint(vector.astype(np.float64) / STEP).astype(np.int64)


def from_fixed_point(words: Integers) -> Vector:
    """Return what a sum of `fixed_point` vectors stands for, float32 [size]."""
    return (words * STEP).astype(np.float32)


@dataclass(frozen=True)
class PublicKey:
    """What encrypts and adds, and can't decrypt.

    Attributes:
        context: TenSEAL's, without a secret key.
    """

    context: Any

    @classmethod
    def read(cls, data: bytes | memoryview) -> PublicKey:
        """Read a published key.

        Raises:
            ProtocolError: It is none, or holds a secret key, which nobody else may have.
        """
        context = _read(lambda raw: require().context_from(raw), _only(data))
        if context.is_private():
            raise ProtocolError("published a secret key")
        return cls(context)

    def encrypt(self, words: Integers) -> bytes:
        """Return a vector's ciphertexts, one for each `SLOTS` of its entries."""
        parts = np.split(words, range(SLOTS, words.size, SLOTS))
        vectors = [
            require().ckks_vector(self.context, part.astype(float).tolist()) for part in parts
        ]
        return b"".join(_padded(vector.serialize()) for vector in vectors)

    def load(self, data: bytes | memoryview, size: int) -> CipherSum:
        """Read the ciphertexts of a vector of `size` entries.

        Raises:
            ProtocolError: They are not.
        """
        return CipherSum(_vectors(self.context, data, size))


@dataclass
class CipherSum:
    """A sum of encrypted vectors, which only the key's holder can read.

    Attributes:
        vectors: TenSEAL's, one for each `SLOTS` of the entries.
    """

    vectors: list[Any]

    def add(self, other: CipherSum) -> None:
        """Add the ciphertexts of another vector of the same length."""
        self.vectors = [one + two for one, two in zip(self.vectors, other.vectors, strict=True)]

    def dump(self) -> bytes:
        """Return the sum's ciphertexts."""
        return b"".join(_padded(vector.serialize()) for vector in self.vectors)


class KeyPair:
    """A fresh pair of keys, whose secret half never leaves this object.

    Attributes:
        public: What `PublicKey.read` reads.
    """

    def __init__(self) -> None:
        tenseal = require()
        self._context = tenseal.context(
            tenseal.SCHEME_TYPE.CKKS, _DEGREE, coeff_mod_bit_sizes=list(_MODULI)
        )
        self._context.global_scale = _SCALE
        self.public = _padded(
            self._context.serialize(
                save_public_key=True,
                save_secret_key=False,
                save_galois_keys=False,
                save_relin_keys=False,
            )
        )

    def decrypt(self, data: bytes | memoryview, size: int) -> Integers:
        """Return the integers that a sum's ciphertexts hold, int64 [size].

        Raises:
            ProtocolError: They are no ciphertexts of `size` entries.
            FedfuseError: Their noise is too large for the integers to be certain.
        """
        vectors = _vectors(self._context, data, size)
        values = np.concatenate([np.array(vector.decrypt()) for vector in vectors])
        words = np.rint(values)
        if float(np.max(np.abs(values - words))) > 0.25:
            raise FedfuseError("the ciphertexts' noise reached the integers; sum fewer of them")
        return words.astype(np.int64)


def _vectors(context: Any, data: bytes | memoryview, size: int) -> list[Any]:
    parts = _parts(data)
    lengths = [min(SLOTS, size - start) for start in range(0, size, SLOTS)]
    vectors = [_read(lambda raw: require().ckks_vector_from(context, raw), part) for part in parts]
    if [_read(lambda v: v.size(), vector) for vector in vectors] != lengths:
        raise ProtocolError(f"ciphertexts of another vector than one of {size} entries")
    return vectors


def _read(parse: Any, data: Any) -> Any:
    try:
        return parse(data)
    except Exception as error:  # TenSEAL raises what SEAL and protobuf do
        raise ProtocolError(f"can't be read by TenSEAL: {error}") from None


def _padded(data: bytes) -> bytes:
    """Return data with its length, filled up: compressed ciphertexts vary by some bytes."""
    framed = _LENGTH.pack(len(data)) + data
    return framed + bytes(-len(framed) % _PADDED_TO)


def _parts(data: bytes | memoryview) -> list[bytes]:
    view, parts = memoryview(data), []
    while view:
        if len(view) < _LENGTH.size:
            raise ProtocolError("ciphertexts end in the middle of a length")
        (length,) = _LENGTH.unpack_from(view)
        end = _LENGTH.size + length
        whole = end + -end % _PADDED_TO
        if len(view) < whole:
            raise ProtocolError("a ciphertext is shorter than it says")
        parts.append(bytes(view[_LENGTH.size : end]))
        view = view[whole:]
    return parts


def _only(data: bytes | memoryview) -> bytes:
    parts = _parts(data)
    if len(parts) != 1:
        raise ProtocolError(f"{len(parts)} keys where one is expected")
    return parts[0]
