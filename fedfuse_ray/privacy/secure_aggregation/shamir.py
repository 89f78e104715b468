"""Secret sharing over a prime field: any `threshold` shares give the secret, fewer say nothing.

Source: Shamir, "How to share a secret", Communications of the ACM 22(11), 1979. Secrets are 32
bytes (an X25519 private key, a mask's seed), so the field is that of the smallest prime above
2^256: every 32-byte string is a field element.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from fedfuse_ray.errors import InputError, ProtocolError
from fedfuse_ray.privacy.secure_aggregation.keys import Randomness

PRIME = 2**256 + 297
SECRET_BYTES = 32
SHARE_BYTES = 33
# 16 bytes more than an element has: the reduction is within 2^-128 of uniform.
_COEFFICIENT_BYTES = 49


def split(
    secret: bytes, threshold: int, points: Sequence[int], randomness: Randomness
) -> dict[int, bytes]:
    """Return one share of the secret for each point.

    The shares are values of a random polynomial of degree `threshold - 1` whose constant term is
    the secret.

    Args:
        secret: 32 bytes.
        threshold: How many shares give it back, from 1 to the number of points.
        points: Where the polynomial is evaluated: distinct integers in [1, 2^32).
        randomness: Source of the other coefficients.

    Returns:
        A share of 33 bytes for each point.

    Raises:
        InputError: The secret's length, the threshold or a point is out of range.

    Formal guarantees:
        Any `threshold - 1` shares are distributed (within 2^-128 a coefficient) as uniform field
        elements, whatever the secret is. Python's integers are not constant-time: a deployment on
        shared hardware needs another implementation.
    """
    if len(secret) != SECRET_BYTES:
        raise InputError("secret", f"{len(secret)} bytes", f"must have {SECRET_BYTES} bytes")
    if len(set(points)) != len(points) or not all(1 <= point < 2**32 for point in points):
        raise InputError("points", list(points), "must be distinct integers from 1 to 2^32 - 1")
    if not 1 <= threshold <= len(points):
        raise InputError("threshold", threshold, f"must be from 1 to {len(points)}, the shares")
    random = randomness(_COEFFICIENT_BYTES * (threshold - 1))
    coefficients = [
        int.from_bytes(random[start : start + _COEFFICIENT_BYTES], "little") % PRIME
        for start in range(0, len(random), _COEFFICIENT_BYTES)
    ]
    coefficients.append(int.from_bytes(secret, "little"))
    return {
        point: _evaluate(coefficients, point).to_bytes(SHARE_BYTES, "little") for point in points
    }


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """Return the secret that the shares belong to.

    Uses the `threshold` shares with the smallest points, so the answer does not depend on the order
    in which shares arrived. Shares carry no check of their own: the caller compares the secret with
    a public key or a commitment.

    Args:
        shares: Point to share, at least `threshold` of them.
        threshold: The threshold that the secret was split with.

    Raises:
        ProtocolError: Too few shares, a share that is no field element, or shares that do not
            belong together (their secret is longer than 32 bytes).
    """
    if len(shares) < threshold:
        raise ProtocolError(f"{len(shares)} shares are too few: the threshold is {threshold}")
    points = tuple(sorted(shares)[:threshold])
    values = [int.from_bytes(shares[point], "little") for point in points]
    if any(len(shares[point]) != SHARE_BYTES for point in points) or max(values) >= PRIME:
        raise ProtocolError("a share is not an element of the field")
    weights = _lagrange_at_zero(points)
    secret = sum(w * value for w, value in zip(weights, values, strict=True)) % PRIME
    if secret >= 2 ** (8 * SECRET_BYTES):
        raise ProtocolError("the shares do not belong to one secret")
    return secret.to_bytes(SECRET_BYTES, "little")


def _evaluate(coefficients: Sequence[int], point: int) -> int:
    """Evaluate by Horner's rule; the highest coefficient comes first."""
    value = 0
    for coefficient in coefficients:
        value = (value * point + coefficient) % PRIME
    return value


@lru_cache(maxsize=1024)
def _lagrange_at_zero(points: tuple[int, ...]) -> tuple[int, ...]:
    """Return the weights that turn the points' values into the value at zero."""
    weights = []
    for point in points:
        numerator, denominator = 1, 1
        for other in points:
            if other != point:
                numerator = numerator * other % PRIME
                denominator = denominator * (other - point) % PRIME
        weights.append(numerator * pow(denominator, -1, PRIME) % PRIME)
    return tuple(weights)
