"""What crosses the wire, or lies in a checkpoint, comes back; what nobody knows is refused."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedfuse_ray.compression.codec import Setting
from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.federation.checkpoints import checkpoint as checkpoints
from fedfuse_ray.federation.checkpoints.checkpoint import Checkpoint
from fedfuse_ray.federation.messages import wire
from fedfuse_ray.federation.messages.downlink import SERVER, Broadcast
from fedfuse_ray.federation.messages.released import Released
from fedfuse_ray.federation.messages.updates import Kept, Update, is_control
from tests.support.federations import plan_of, tiny

BLOCKS = ("encoder/ct", "encoder/ct@edge", "fusion", "head/medical", "control", "setting", "a|b")
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
VECTORS = st.lists(FINITE, min_size=1, max_size=5).map(lambda values: np.array(values, np.float32))
BLOCKWISE = st.dictionaries(st.sampled_from(BLOCKS), VECTORS)
UPDATES = st.builds(Update, BLOCKWISE, BLOCKWISE)
POSITIVE = st.floats(2.0**-20, 2.0**20, width=32)
SETTINGS = st.dictionaries(
    st.sampled_from(BLOCKS),
    st.builds(Setting, bits=st.integers(1, 32), fraction=st.floats(2.0**-20, 1.0, width=32)),
)
RELEASED = st.builds(Released, st.none() | POSITIVE, st.none() | POSITIVE, SETTINGS)
KEPT = st.builds(
    Kept,
    BLOCKWISE,
    st.dictionaries(st.sampled_from((*BLOCKS, "control/fusion")), VECTORS),
    st.just(0.0) | st.floats(2.0**-20, 2.0**20),
)


@cache
def downlink():
    return plan_of(tiny()).downlink


def same(one, other):
    assert one.keys() == other.keys()
    for name, vector in one.items():
        assert vector.dtype == other[name].dtype == np.float32
        assert vector.tobytes() == other[name].tobytes(), name


@settings(deadline=None)
@given(update=UPDATES)
def test_an_update_comes_back_from_its_names_on_the_wire(update):
    named = update.on_wire()
    assert len(named) == len(update.weights) + len(update.controls)
    assert sum(map(is_control, named)) == len(update.controls)
    back = Update.from_wire(named)
    same(back.weights, update.weights)
    same(back.controls, update.controls)
    assert bool(back) == bool(update) == bool(named)


@settings(deadline=None)
@given(released=RELEASED)
def test_what_was_released_comes_back_from_its_names_on_the_wire(released):
    named = released.on_wire()
    assert all(vector.dtype == np.float32 for vector in named.values())
    assert Released.from_wire(named) == released == released.as_sent()


@settings(deadline=None)
@given(norm=st.floats(1e-6, 1e6), factor=st.floats(1e-3, 1e3))
def test_the_server_uses_the_values_that_others_read(norm, factor):
    """Float64 does not cross: what is used is what float32 holds, and stays so."""
    sent = Released(norm, factor).as_sent()
    assert (sent.clip_norm, sent.noise_factor) == (float(np.float32(norm)), np.float32(factor))
    assert sent.as_sent() == sent == Released.from_wire(sent.on_wire())


@settings(deadline=None)
@given(weights=BLOCKWISE, controls=BLOCKWISE, released=RELEASED, behind=st.booleans())
def test_a_broadcast_comes_back_from_its_message(weights, controls, released, behind):
    broadcast = Broadcast(3, weights, {}, controls, released)
    names = [*broadcast.sizes, *broadcast.vectors]
    received = downlink().receive(downlink().message(broadcast, names, behind), broadcast.held)
    same(received.weights, weights)
    same(received.controls, controls)
    assert received.released == released


@settings(deadline=None)
@given(released=RELEASED, stranger=st.text(st.characters(codec="ascii"), max_size=12))
def test_a_vector_that_nobody_knows_is_refused(released, stranger):
    known = stranger in ("clipping/norm", "noise/factor")
    if known or stranger.startswith("setting/") or is_control(stranger):
        stranger = f"x{stranger}"
    vectors = released.on_wire() | {stranger: np.float32([1.0])}
    with pytest.raises(ProtocolError, match="which nobody knows"):
        Released.from_wire(vectors)
    blocks = {name: vector.tobytes() for name, vector in vectors.items()}
    sizes = {name: vector.size for name, vector in vectors.items()}
    forged = wire.pack(wire.Message(SERVER, 1, "fp32", blocks, sizes, steps=0))
    with pytest.raises(ProtocolError, match="which nobody knows"):
        downlink().receive(forged, {"fusion": np.zeros(2, np.float32)})


@pytest.mark.parametrize("name", ["clipping/norm", "noise/factor", "setting/fusion"])
@settings(deadline=None, max_examples=50)
@given(values=st.lists(st.floats(width=32, allow_nan=True), max_size=4))
def test_values_that_no_round_has_are_refused_and_nothing_else_escapes(name, values):
    """An active server's broadcast ends in a `ProtocolError`, or in terms that a round may have."""
    try:
        read = Released.from_wire({name: np.float32(values)})
    except ProtocolError:
        return
    assert read.as_sent() == read
    assert len(values) == (2 if name.startswith("setting/") else 1)
    assert np.isfinite(values).all()
    assert min(values) > 0


@settings(max_examples=40, deadline=None)
@given(kept=st.dictionaries(st.sampled_from(("med-01", "b-2", "mat 01")), KEPT))
def test_what_institutions_keep_comes_back_from_a_checkpoint(kept):
    with tempfile.TemporaryDirectory() as folder:
        stored = Checkpoint(1, {"fusion": np.zeros(1, np.float32)}, institutions=kept)
        back = checkpoints.read(checkpoints.save(Path(folder), stored)).institutions
    assert back.keys() == {who for who, each in kept.items() if each}  # Nothing is not kept.
    for who, each in back.items():
        same(each.controls, kept[who].controls)
        same(each.memory, kept[who].memory)
        assert each.spent == kept[who].spent
