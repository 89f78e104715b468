"""Secure aggregation: the field, and that laying a polynomial through given shares is Shamir's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import combinations, product

import pytest

from fedfuse_ray import rng
from fedfuse_ray.errors import InputError, ProtocolError
from fedfuse_ray.privacy.secure_aggregation import shamir
from fedfuse_ray.privacy.secure_aggregation.shamir import (
    PRIME,
    SHARE_BYTES,
    combine,
    complete,
    uniform_share,
)

FACTORS = (2, 3, 17, 89, 6481, 5816689, 12275703273579557140363)
"""The primes that divide PRIME - 1."""


def passes_miller_rabin(number: int) -> bool:
    """Tell whether a number passes for a prime; below 3 * 10^23 these bases prove it."""
    bases = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
    exponent = number - 1
    twos = (exponent & -exponent).bit_length() - 1
    for base in bases:
        if number == base:
            return True
        value = pow(base, exponent >> twos, number)
        seen = [value]
        for _ in range(twos - 1):
            seen.append(seen[-1] ** 2 % number)
        if value != 1 and number - 1 not in seen:
            return False
    return True


def proven_prime(number: int, factors: tuple[int, ...], base: int) -> bool:
    """Lucas' proof: the base's order is number - 1, whose prime factors are given."""
    rest = number - 1
    for factor in factors:
        while rest % factor == 0:
            rest //= factor
    orders = [pow(base, (number - 1) // factor, number) for factor in factors]
    factors_are_prime = all(passes_miller_rabin(factor) for factor in factors)
    return factors_are_prime and rest == 1 == pow(base, number - 1, number) and 1 not in orders


def test_the_field_is_that_of_the_smallest_prime_above_all_secrets() -> None:
    assert PRIME == 2**128 + 51
    assert proven_prime(PRIME, FACTORS, base=2)
    assert not any(passes_miller_rabin(number) for number in range(2**128, PRIME))
    assert not proven_prime(15, (2, 7), base=2)
    assert not proven_prime(PRIME, FACTORS[:-1], base=2)


def test_shares_out_of_range_are_refused() -> None:
    random = rng.generator(0, "shamir").bytes
    given = {point: uniform_share(random(33)) for point in (2, 4)}
    shares = complete(b"s" * 16, given, [1, 3])
    assert combine(shares | given, 3) == b"s" * 16
    with pytest.raises(ProtocolError, match="too few"):
        combine({1: shares[1], 2: given[2]}, 3)
    for bad in (b"\xff" * SHARE_BYTES, b"", PRIME.to_bytes(SHARE_BYTES, "little")):
        with pytest.raises(ProtocolError, match="field"):
            combine(shares | {2: bad}, 3)
        with pytest.raises(InputError, match="field"):
            complete(b"s" * 16, given | {2: bad}, [1])
    for secret, points in ((b"s", [1]), (b"s" * 16, [0]), (b"s" * 16, [2]), (b"s" * 16, [1, 1])):
        with pytest.raises(InputError):
            complete(secret, given, points)
    with pytest.raises(InputError, match="33 bytes"):
        uniform_share(bytes(32))


@pytest.fixture
def field_of_seven(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A field in which all polynomials can be counted."""
    caches = (shamir._weights, shamir._scales, shamir._inverse)
    monkeypatch.setattr(shamir, "PRIME", 7)
    for cache in caches:
        cache.cache_clear()
    yield 7
    for cache in caches:
        cache.cache_clear()


def sharing(secret: int, given: dict[int, int]) -> tuple[int, ...]:
    """Return the shares at the points 1 to 5, as numbers."""
    known = {point: value.to_bytes(SHARE_BYTES, "little") for point, value in given.items()}
    rest = [point for point in range(1, 6) if point not in known]
    found = known | complete(secret.to_bytes(16, "little"), known, rest)
    return tuple(int.from_bytes(found[point], "little") for point in range(1, 6))


@pytest.mark.parametrize("points", [(1, 2), (2, 5), (4, 3)])
def test_uniform_given_shares_are_exactly_shamirs(
    field_of_seven: int, points: tuple[int, int]
) -> None:
    """All cases counted: the same sharings, equally often, as from all polynomials."""
    numbers = range(field_of_seven)
    for secret in numbers:
        completed = Counter(
            sharing(secret, dict(zip(points, values, strict=True)))
            for values in product(numbers, repeat=2)
        )
        shamirs = Counter(
            tuple((secret + a * x + b * x * x) % field_of_seven for x in range(1, 6))
            for a, b in product(numbers, repeat=2)
        )
        assert completed == shamirs


def seen_by(
    pair: tuple[int, int], secret: int, chosen: int, tied: bool
) -> Counter[tuple[int, int]]:
    """Count what two holders see when the one at 1 chose its share, over all the other values."""
    counts: Counter[tuple[int, int]] = Counter()
    for value in range(7):
        shares = sharing(secret, {1: chosen, 2: chosen if tied else value})
        counts[shares[pair[0] - 1], shares[pair[1] - 1]] += 1
    return counts


def test_a_share_that_its_holder_chose_says_no_more(field_of_seven: int) -> None:
    pairs = [pair for pair in combinations(range(1, 6), 2) if 1 in pair]
    for pair, chosen in product(pairs, range(field_of_seven)):
        views = [seen_by(pair, secret, chosen, tied=False) for secret in range(field_of_seven)]
        assert all(view == views[0] for view in views)
    # The control: were the other's value not independent of it, they would tell the secret.
    tied = [seen_by((1, 3), secret, 4, tied=True) for secret in range(field_of_seven)]
    assert len({frozenset(view) for view in tied}) == field_of_seven
