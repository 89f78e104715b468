"""Properties of secure aggregation: masks cancel, shares reconstruct, encodings stay in bounds."""

from __future__ import annotations

import contextlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedfuse_ray import rng
from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.privacy.secure_aggregation import (
    BlockTerms,
    FixedPoint,
    RoundTerms,
    Stage,
    from_modular,
    minimum_threshold,
    run_round,
    simulation_identities,
    simulation_randomness,
    to_modular,
    word_dtype,
)
from fedfuse_ray.privacy.secure_aggregation.envelope import Kind, read_list, read_map, seal, unseal
from fedfuse_ray.privacy.secure_aggregation.shamir import PRIME, SHARE_BYTES, combine, split

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
        f"block-{index}": BlockTerms(draw(st.integers(1, 50)), tuple(draw(owners)))
        for index in range(draw(st.integers(1, 4)))
    }
    threshold = draw(st.integers(minimum_threshold(count), count))
    lost = draw(st.lists(st.sampled_from(names), max_size=count - threshold, unique=True))
    stages = {name: draw(st.sampled_from(list(Stage))) for name in lost}
    dropouts = {stage: tuple(n for n in lost if stages[n] is stage) for stage in Stage}
    bits = draw(st.integers(8, 32))
    identities = {name: PUBLIC[name] for name in names}
    terms = RoundTerms("property", 0, threshold, bits, identities, blocks)
    return terms, dropouts, draw(st.integers(0, 2**32))


@given(federations())
@settings(max_examples=60, deadline=None)
def test_masks_cancel_for_any_owners_blocks_and_dropouts(
    federation: tuple[RoundTerms, dict[Stage, tuple[str, ...]], int],
) -> None:
    terms, dropouts, seed = federation
    bits, generator = terms.modulus_bits, rng.generator(seed, "inputs")
    inputs = {
        name: {
            block: generator.integers(0, 1 << bits, item.size, dtype=np.uint64).astype(
                word_dtype(bits)
            )
            for block, item in terms.blocks.items()
            if name in item.owners
        }
        for name in terms.identities
    }
    aggregate = run_round(
        terms, IDENTITIES, inputs, dropouts, lambda name: simulation_randomness(seed, name, 0)
    ).aggregate
    early = (Stage.ADVERTISE_KEYS, Stage.SHARE_KEYS, Stage.MASKED_INPUT)
    lost = {name for stage in early for name in dropouts[stage]}
    for block, item in terms.blocks.items():
        left = [name for name in item.owners if name not in lost]
        if len(left) < min(2, len(item.owners)):
            assert block in aggregate.withheld
            continue
        exact = sum(inputs[name][block].astype(np.uint64) for name in left)
        np.testing.assert_array_equal(aggregate.sums[block], exact % (1 << bits))
        assert (block in aggregate.unprotected) == (len(left) == 1)


@st.composite
def sharings(draw: st.DrawFn) -> tuple[bytes, int, dict[int, bytes], list[int]]:
    """A secret, a threshold, its shares, and a random choice of exactly a threshold of points."""
    points = draw(st.lists(st.integers(1, 2**32 - 1), min_size=1, max_size=15, unique=True))
    threshold = draw(st.integers(1, len(points)))
    secret = draw(st.binary(min_size=32, max_size=32))
    seed = draw(st.integers(0, 2**32))
    shares = split(secret, threshold, points, rng.generator(seed, "split").bytes)
    return secret, threshold, shares, draw(st.permutations(points))[:threshold]


@given(sharings())
def test_any_threshold_of_shares_gives_the_secret(
    sharing: tuple[bytes, int, dict[int, bytes], list[int]],
) -> None:
    secret, threshold, shares, chosen = sharing
    assert combine({point: shares[point] for point in chosen}, threshold) == secret


@given(sharings(), st.binary(min_size=32, max_size=32))
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
    st.integers(8, 32),
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


@given(st.integers(8, 32), st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=20))
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
    for read in (read_list, read_map):
        with contextlib.suppress(ProtocolError):
            read(junk)
