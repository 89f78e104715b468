"""The randomness of privacy: equal names give equal streams, and no other names do."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedfuse_ray.errors import FedfuseError
from fedfuse_ray.privacy.randomness import ROOT_BYTES, Randomness, derived, digest_of, secret

WORDS = st.binary(max_size=6)
KEYS = st.lists(st.integers(-3, 300) | st.text(max_size=4), max_size=4).map(tuple)
NAMES = st.tuples(
    st.integers(0, 3),  # the seed
    st.lists(WORDS, max_size=2).map(tuple),  # facts of the root
    st.lists(WORDS, max_size=2).map(tuple),  # facts of the context
    st.text(max_size=4),  # the purpose
    KEYS,
    WORDS,  # the message
)


def drawn(name):
    seed, facts, context, purpose, keys, message = name
    draws = derived(seed, *facts).given(*context) if context else derived(seed, *facts)
    return draws.stream(purpose, *keys, message=message).bytes(16)


@given(NAMES, NAMES)
@settings(max_examples=400, deadline=None)
def test_streams_are_equal_if_and_only_if_all_parts_of_their_names_are(one, other):
    assert drawn(one) == drawn(one)
    assert (drawn(one) == drawn(other)) == (one == other)


def test_every_part_of_a_name_counts():
    """Each changed by itself, so that none is lost among the others; and none runs into another."""
    facts, weights = (b"config", b"data"), b"weights"
    base = derived(0, *facts).given(weights)
    streams = [
        base.stream("noise", "med-01", 1, message=b"sum"),
        derived(1, b"config", b"data")
        .given(b"weights")
        .stream("noise", "med-01", 1, message=b"sum"),
        derived(0, b"confi", b"gdata")
        .given(b"weights")
        .stream("noise", "med-01", 1, message=b"sum"),
        derived(0, b"config", b"data").stream("noise", "med-01", 1, message=b"sum"),
        base.given(b"epoch 1").stream("noise", "med-01", 1, message=b"sum"),
        derived(0, b"config", b"data")
        .given(b"weig", b"hts")
        .stream("noise", "med-01", 1, message=b"sum"),
        base.stream("sample", "med-01", 1, message=b"sum"),
        base.stream("noise", "med-02", 1, message=b"sum"),
        base.stream("noise", "med-01", 2, message=b"sum"),
        base.stream("noise", "med-01", "1", message=b"sum"),
        base.stream("noise", "med-01", 1, 1, message=b"sum"),
        base.stream("noise", "med-01", 1, message=b"another"),
        base.stream("noise", "med-01", 1),
    ]
    drawn = [stream.standard_normal(4000) for stream in streams]
    for one, other in itertools.combinations(drawn, 2):
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(4000)


def test_a_digest_holds_names_types_shapes_and_values():
    base = {"a": np.arange(4, dtype=np.float32)}
    others = [
        {"b": base["a"]},
        {"a": base["a"].astype(np.float64)},
        {"a": base["a"].reshape(2, 2)},
        {"a": np.nextafter(base["a"], np.float32(9))},
        {**base, "b": base["a"]},
        {},
    ]
    assert digest_of(base) == digest_of({"a": base["a"].copy()})
    assert len({digest_of(arrays) for arrays in (base, *others)}) == 1 + len(others)


def test_secret_roots_never_come_again_and_are_never_shown():
    roots = {secret().root for _ in range(20)}
    assert len(roots) == 20
    for root in roots:
        shown = repr(Randomness(root).given(b"weights"))
        assert root.hex() not in shown
        assert repr(root) not in shown


@pytest.mark.parametrize("size", [0, ROOT_BYTES - 1, ROOT_BYTES + 1])
def test_a_root_of_another_length_is_refused(size):
    with pytest.raises(FedfuseError, match=f"{ROOT_BYTES} bytes"):
        Randomness(bytes(size))
