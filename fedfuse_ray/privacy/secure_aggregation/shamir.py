"""Secret sharing over a prime field: any `threshold` shares give the secret, fewer say nothing.

Source: Shamir, "How to share a secret", Communications of the ACM 22(11), 1979. Secrets are 16
bytes, so the field is that of the smallest prime above 2^128: every 16-byte string is a field
element. The polynomial is not drawn by its coefficients but by its values at as many points as the
degree asks for, which gives the same distribution (see `complete`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from fedfuse_ray.errors import InputError, ProtocolError

PRIME = 2**128 + 51
SECRET_BYTES = 16
SHARE_BYTES = 17
# 16 bytes more than an element has: the reduction is within 2^-128 of uniform.
UNIFORM_BYTES = 33


def uniform_share(random: bytes) -> bytes:
    """Return 33 uniform bytes as a share, within 2^-128 of a uniform field element.

    Raises:
        InputError: There are more or fewer bytes.
    """
    if len(random) != UNIFORM_BYTES:
        raise InputError("random", f"{len(random)} bytes", f"must have {UNIFORM_BYTES} bytes")
    return (int.from_bytes(random, "little") % PRIME).to_bytes(SHARE_BYTES, "little")


def complete(secret: bytes, given: Mapping[int, bytes], points: Sequence[int]) -> dict[int, bytes]:
    """Return the shares that belong to a secret and to the shares given.

    They are values of the one polynomial of degree `len(given)` that is the secret at zero and the
    given shares at their points. Any `len(given) + 1` shares give the secret back.

    Args:
        secret: 16 bytes.
        given: Point to share, for `threshold - 1` points.
        points: Where else the polynomial is evaluated. All points are distinct integers in
            [1, 2^32).

    Returns:
        A share of 17 bytes for each of `points`.

    Raises:
        InputError: The secret's length, a given share or a point is out of range.

    Formal guarantees:
        With given shares that are independent and uniform this is Shamir's sharing: the values of a
        polynomial at zero and at t - 1 points fix it, and it them, by a linear bijection, so
        uniform values at the points mean uniform coefficients beside the constant one, and the
        reverse. Any t - 1 shares are then uniform whatever the secret is. That holds too when c of
        the given shares are chosen or known by an adversary who sees up to t - 1 shares in all,
        these c among them: for a fixed secret the others are the image, under a linear map of full
        rank, of the t - 1 - c that are uniform. Python's integers are not constant-time: a
        deployment on shared hardware needs another implementation.
    """
    if len(secret) != SECRET_BYTES:
        raise InputError("secret", f"{len(secret)} bytes", f"must have {SECRET_BYTES} bytes")
    every = [*given, *points]
    if len(set(every)) != len(every) or not all(1 <= point < 2**32 for point in every):
        raise InputError("points", every, "must be distinct integers from 1 to 2^32 - 1")
    values = [int.from_bytes(share, "little") for share in (secret, *given.values())]
    if any(len(share) != SHARE_BYTES for share in given.values()) or max(values) >= PRIME:
        raise InputError("shares", "out of range", "must be elements of the field")
    fixed = (0, *given)
    return {
        point: _dot(_weights(fixed, point), values).to_bytes(SHARE_BYTES, "little")
        for point in points
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
            belong together (their secret is longer than 16 bytes).
    """
    if len(shares) < threshold:
        raise ProtocolError(f"{len(shares)} shares are too few: the threshold is {threshold}")
    points = tuple(sorted(shares)[:threshold])
    values = [int.from_bytes(shares[point], "little") for point in points]
    if any(len(shares[point]) != SHARE_BYTES for point in points) or max(values) >= PRIME:
        raise ProtocolError("a share is not an element of the field")
    secret = _dot(_weights(points, 0), values)
    if secret >= 2 ** (8 * SECRET_BYTES):
        raise ProtocolError("the shares do not belong to one secret")
    return secret.to_bytes(SECRET_BYTES, "little")


def _dot(weights: Sequence[int], values: Sequence[int]) -> int:
    return sum(w * value for w, value in zip(weights, values, strict=True)) % PRIME


# As many as 15 senders and the secrets of a round need, and points and rounds repeat.
@lru_cache(maxsize=4096)
def _weights(points: tuple[int, ...], target: int) -> tuple[int, ...]:
    """Return Lagrange's weights, which turn the points' values into the value at the target."""
    through_all = 1
    for point in points:
        through_all = through_all * (target - point) % PRIME
    return tuple(
        through_all * scale * _inverse(target - point) % PRIME
        for point, scale in zip(points, _scales(points), strict=True)
    )


@lru_cache(maxsize=256)
def _scales(points: tuple[int, ...]) -> tuple[int, ...]:
    """Return the inverse of each point's product of distances to the others: Lagrange's basis."""
    scales = []
    for point in points:
        product = 1
        for other in points:
            if other != point:
                product = product * (point - other) % PRIME
        scales.append(pow(product, -1, PRIME))
    return tuple(scales)


@lru_cache(maxsize=4096)
def _inverse(distance: int) -> int:
    """Return 1 / distance; points are small integers, so few distances occur."""
    return pow(distance, -1, PRIME)
