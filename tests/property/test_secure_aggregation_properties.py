"""Properties of secure aggregation: masks cancel, shares reconstruct, encodings stay in bounds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedfuse_ray import rng
from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.privacy.secure_aggregation import (
    BlockTerms,
    RoundTerms,
    Stage,
    from_modular,
    minimum_threshold,
    run_round,
    to_modular,
    word_dtype,
)
from fedfuse_ray.privacy.secure_aggregation.envelope import Kind, read_records, seal, unseal
from fedfuse_ray.privacy.secure_aggregation.fields import Reader, bitmap
from fedfuse_ray.privacy.secure_aggregation.messages import (
    Delivery,
    EncryptedShares,
    MaskedInput,
    Names,
    Shares,
    UnmaskingShares,
)
from fedfuse_ray.privacy.secure_aggregation.shamir import (
    PRIME,
    SHARE_BYTES,
    combine,
    complete,
    uniform_share,
)
from tests.support.privacy.fixed_point import FixedPoint
from tests.support.privacy.secure_rounds import simulation_identities, simulation_randomness

NAMES = tuple(f"site-{index}" for index in range(6))
IDENTITIES = simulation_identities(0, NAMES)
PUBLIC = {name: identity.public for name, identity in IDENTITIES.items()}


@st.composite
def federations(draw: st.DrawFn) -> tuple[RoundTerms, dict[Stage, tuple[str, ...]], int]:
    """Random owners, sizes, widths, threshold and dropouts that leave a threshold of members."""
    count = draw(st.integers(2, len(NAMES)))
    names = NAMES[:count]
    owners = st.lists(st.sampled_from(names), min_size=1, unique=True)
    blocks = {
        f"block-{index}": BlockTerms(
            size=draw(st.integers(1, 50)),
            owners=tuple(draw(owners)),
            modulus_bits=draw(st.none() | st.integers(2, 32)),
        )
        for index in range(draw(st.integers(1, 4)))
    }
    threshold = draw(st.integers(minimum_threshold(count), count))
    lost = draw(st.lists(st.sampled_from(names), max_size=count - threshold, unique=True))
    stages = {name: draw(st.sampled_from(list(Stage))) for name in lost}
    dropouts = {stage: tuple(n for n in lost if stages[n] is stage) for stage in Stage}
    bits = draw(st.integers(2, 32))
    identities = {name: PUBLIC[name] for name in names}
    terms = RoundTerms("property", 0, threshold, bits, identities, blocks)
    return terms, dropouts, draw(st.integers(0, 2**32))


@given(federations())
@settings(max_examples=60, deadline=None)
def test_masks_cancel_for_any_owners_blocks_and_dropouts(
    federation: tuple[RoundTerms, dict[Stage, tuple[str, ...]], int],
) -> None:
    terms, dropouts, seed = federation
    generator = rng.generator(seed, "inputs")
    inputs = {
        name: {
            block: generator.integers(0, 1 << terms.bits(block), item.size, dtype=np.uint64).astype(
                word_dtype(terms.bits(block))
            )
            for block, item in terms.blocks.items()
            if name in item.owners
        }
        for name in terms.identities
    }
    aggregate = run_round(
        terms, IDENTITIES, inputs, dropouts, lambda name: simulation_randomness(seed, name, 0)
    ).unmasked
    early = (Stage.ADVERTISE_KEYS, Stage.SHARE_KEYS, Stage.MASKED_INPUT)
    lost = {name for stage in early for name in dropouts[stage]}
    for block, item in terms.blocks.items():
        left = [name for name in item.owners if name not in lost]
        if len(left) < min(2, len(item.owners)):
            assert block in aggregate.withheld
            continue
        exact = sum(inputs[name][block].astype(np.uint64) for name in left)
        np.testing.assert_array_equal(aggregate.sums[block], exact % (1 << terms.bits(block)))
        assert (block in aggregate.unprotected) == (len(left) == 1)


@st.composite
def sharings(draw: st.DrawFn) -> tuple[bytes, int, dict[int, bytes], list[int]]:
    """A secret, a threshold, its shares, and a random choice of exactly a threshold of points."""
    points = draw(st.lists(st.integers(1, 2**32 - 1), min_size=1, max_size=15, unique=True))
    threshold = draw(st.integers(1, len(points)))
    secret = draw(st.binary(min_size=16, max_size=16))
    random = rng.generator(draw(st.integers(0, 2**32)), "split").bytes
    given = {point: uniform_share(random(33)) for point in points[: threshold - 1]}
    shares = given | complete(secret, given, points[threshold - 1 :])
    return secret, threshold, shares, draw(st.permutations(points))[:threshold]


@given(sharings())
def test_any_threshold_of_shares_gives_the_secret(
    sharing: tuple[bytes, int, dict[int, bytes], list[int]],
) -> None:
    secret, threshold, shares, chosen = sharing
    assert combine({point: shares[point] for point in chosen}, threshold) == secret


@given(sharings(), st.binary(min_size=16, max_size=16))
def test_one_share_less_fits_every_secret(
    sharing: tuple[bytes, int, dict[int, bytes], list[int]], candidate: bytes
) -> None:
    """For any other secret there is a last share that makes the known ones give it."""
    _, threshold, shares, chosen = sharing
    known = {point: int.from_bytes(shares[point], "little") for point in chosen[1:]}
    values = known | {0: int.from_bytes(candidate, "little")}
    last = 0
    for point, value in values.items():
        weight = 1
        for other in values:
            if other != point:
                weight *= (chosen[0] - other) * pow(point - other, -1, PRIME)
        last = (last + value * weight) % PRIME
    faked = {point: shares[point] for point in chosen[1:]}
    faked[chosen[0]] = last.to_bytes(SHARE_BYTES, "little")
    assert combine(faked, threshold) == candidate


@given(
    st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=30),
    st.floats(0.01, 5),
    st.integers(5, 32),
    st.integers(1, 15),
    st.integers(0, 2**32),
)
def test_a_decoded_sum_is_within_a_step_for_each_client(
    values: list[float], clip: float, bits: int, clients: int, seed: int
) -> None:
    coding = FixedPoint.fit(clip, bits, clients)
    vector = np.array(values, dtype=np.float32)
    total = np.zeros(vector.size, dtype=word_dtype(bits))
    for client in range(clients):
        total += coding.encode(vector, rng.generator(seed, "encode", client))
    decoded = coding.decode(total, clients)
    exact = clients * np.clip(vector.astype(np.float64), -clip, clip)
    allowed = clients * coding.step * (1 + 1e-6) + 1e-6 * np.abs(exact)
    assert (np.abs(decoded - exact) <= allowed).all()


@given(st.integers(2, 32), st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=20))
def test_signed_integers_wrap_as_the_modulus_says(bits: int, values: list[int]) -> None:
    found = from_modular(to_modular(np.array(values, dtype=np.int64), bits), bits)
    half = 1 << (bits - 1)
    assert [int(v) for v in found] == [(v + half) % (2 * half) - half for v in values]


TERMS = RoundTerms("property", 0, 4, 8, PUBLIC, {"fusion": BlockTerms(1, NAMES)})
SEALED = seal(Kind.ADVERTISEMENT, bytes(64), TERMS, NAMES[0], IDENTITIES[NAMES[0]])


@given(st.binary(max_size=200), st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_whatever_arrives_is_refused_in_one_way(junk: bytes, position: int, flip: int) -> None:
    altered = bytearray(SEALED)
    altered[position] ^= flip
    for data in (junk, SEALED[:position] + junk, bytes(altered)):
        if data == SEALED:
            continue
        try:
            unseal(data, Kind.ADVERTISEMENT, TERMS)
        except ProtocolError:
            continue
        raise AssertionError("a message that nobody signed was taken")
    readers: tuple[Callable[[bytes], object], ...] = (
        lambda data: read_records(data, Kind.ADVERTISEMENT, TERMS),
        lambda data: EncryptedShares.from_bytes(data, TERMS, NAMES[0]),
        lambda data: MaskedInput.from_bytes(data, TERMS, NAMES[0]),
        lambda data: Shares.from_bytes(data, ("fusion",)),
        lambda data: Delivery.from_bytes(data, TERMS),
        lambda data: Names.from_bytes(data, TERMS),
        lambda data: UnmaskingShares.from_bytes(data, TERMS),
    )
    for read in readers:
        with contextlib.suppress(ProtocolError):
            read(junk)


@given(st.lists(st.booleans(), max_size=40))
def test_a_subset_comes_back_in_its_order(chosen: list[bool]) -> None:
    order = [f"member-{index}" for index in range(len(chosen))]
    present = tuple(name for name, there in zip(order, chosen, strict=True) if there)
    reader = Reader(bitmap(order, frozenset(present)), "it")
    assert reader.subset(order) == present
    reader.end()


@given(st.lists(st.sampled_from(["gone", "here", "absent"]), min_size=6, max_size=6), st.data())
def test_answers_come_back_and_no_other_bytes_mean_the_same(
    states: list[str], data: st.DataObject
) -> None:
    found = {what: [n for n, s in zip(NAMES, states, strict=True) if s == what] for what in states}
    survivors = found.get("here", [])
    released = ("fusion",) if len(survivors) > 1 else ()
    share = st.binary(min_size=SHARE_BYTES, max_size=SHARE_BYTES)
    answer = UnmaskingShares(
        mask_keys={name: data.draw(share) for name in found.get("gone", [])},
        seeds={name: {block: data.draw(share) for block in released} for name in survivors},
    )
    body = answer.to_bytes(TERMS)
    assert UnmaskingShares.from_bytes(body, TERMS) == answer
    altered = bytearray(body)
    altered[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(ProtocolError):
        other = UnmaskingShares.from_bytes(bytes(altered), TERMS)
        assert other != answer
        assert other.to_bytes(TERMS) == altered
