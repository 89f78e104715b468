"""The broadcast: one set of bytes, from which server and institutions come to the same weights."""

from __future__ import annotations

import itertools
import math
from typing import get_args

import numpy as np
import pytest

from fedfuse_ray.compression.codec import Setting
from fedfuse_ray.config.settings.compression import DownlinkConfig
from fedfuse_ray.errors import InputError, ProtocolError
from fedfuse_ray.federation.checkpoints.checkpoint import Checkpoint
from fedfuse_ray.federation.checkpoints.state import ServerState
from fedfuse_ray.federation.messages import wire
from fedfuse_ray.federation.messages.downlink import Broadcast
from fedfuse_ray.federation.messages.released import Released
from fedfuse_ray.federation.modes.sides import ServerSide
from fedfuse_ray.federation.server.server import ParameterServer
from fedfuse_ray.models.initial import initial_blocks
from tests.support.federations import plan_of, random_blocks, tiny

CODECS = get_args(DownlinkConfig.model_fields["codec"].annotation)
CHANGING = [name for name in CODECS if name != "fp32"]
CONTRACTIONS = [name for name in CHANGING if name != "subspace"]
"""Those under which a change that is sent again and again arrives in the end."""
SETTING = "setting/fusion"
RELEASED = Released(settings={"fusion": Setting(bits=5, fraction=0.25)})
ROUND = 7


@pytest.fixture(scope="module")
def plans():
    up = {"subspace": ("compression.codec=subspace",)}  # the one that a broadcast in it needs
    return {
        name: plan_of(tiny(f"compression.downlink.codec={name}", *up.get(name, ())))
        for name in CODECS
    }


@pytest.fixture(scope="module")
def initial(plans):
    return initial_blocks(plans["fp32"].spec)


def sizes_of(blocks):
    return {name: vector.size for name, vector in blocks.items()}


def moved(blocks, seed, scale=0.01):
    """Return the blocks after a step of a random walk."""
    step = random_blocks(sizes_of(blocks), seed)
    return {name: vector + np.float32(scale) * step[name] for name, vector in blocks.items()}


def broadcast_of(downlink, initial):
    """Return the broadcast of a round in which institutions hold something near the weights."""
    weights = moved(initial, seed=1)
    if not downlink.sends_changes:
        return Broadcast(ROUND, weights, {}, released=RELEASED)
    changes = downlink.changes(weights, initial, ROUND)
    return Broadcast(ROUND, initial, changes, released=RELEASED)


def distance(one, other):
    squares = (np.square(one[n].astype(np.float64) - other[n]).sum() for n in one)
    return math.sqrt(math.fsum(squares))


def same(one, other):
    assert one.keys() == other.keys()
    for name, vector in one.items():
        assert vector.dtype == np.float32
        assert vector.tobytes() == other[name].tobytes(), name


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_received_is_what_the_server_believes_to_be_held(plans, initial, codec):
    downlink = plans[codec].downlink
    broadcast = broadcast_of(downlink, initial)
    believed = downlink.weights(broadcast)
    received = downlink.receive(
        downlink.message(broadcast, [*initial, SETTING], behind=False), broadcast.held
    )
    same(received.weights, believed)
    same(received.released.on_wire(), broadcast.vectors)
    assert received.released == RELEASED


@pytest.mark.parametrize("codec", CODECS)
def test_an_institution_is_sent_its_own_blocks_only(plans, initial, codec):
    plan = plans[codec]
    broadcast = broadcast_of(plan.downlink, initial)
    believed = plan.downlink.weights(broadcast)
    received = {}
    for participant in plan.participants:
        owned = plan.blocks_of(participant)
        message = plan.downlink.message(broadcast, owned, behind=False)
        read = plan.downlink.receive(message, broadcast.held)
        same(read.weights, {n: v for n, v in believed.items() if n in owned})
        assert (read.controls, read.released) == ({}, Released())
        received[participant.name] = len(message)
    # The owner of one modality fewer is sent less.
    assert received["med-02"] < received["med-01"]


@pytest.mark.parametrize("codec", CHANGING)
def test_who_missed_a_broadcast_is_sent_the_identical_weights_anew(plans, initial, codec):
    downlink = plans[codec].downlink
    broadcast = broadcast_of(downlink, initial)
    message = downlink.message(broadcast, [*initial, SETTING], behind=True)
    # What it held before does not matter, were it nonsense.
    received = downlink.receive(message, moved(initial, seed=5, scale=10.0))
    same(received.weights, downlink.weights(broadcast))
    same(received.released.on_wire(), broadcast.vectors)
    assert wire.unpack(message).codec == "fp32"
    assert len(message) > 4 * sum(sizes_of(initial).values())


@pytest.mark.parametrize("codec", CODECS)
def test_a_message_is_its_payloads_behind_a_header(plans, initial, codec):
    downlink = plans[codec].downlink
    broadcast = broadcast_of(downlink, initial)
    message = downlink.message(broadcast, [*initial, SETTING], behind=False)
    read = wire.unpack(message)
    assert read.round == ROUND
    assert read.sizes == {**sizes_of(initial), SETTING: 2}
    payload = 4 * 2
    for name, vector in initial.items():
        wanted = len(broadcast.changes[name]) if broadcast.changes else 4 * vector.size
        assert len(read.blocks[name]) == wanted
        payload += wanted
    (header_bytes,) = np.frombuffer(message[6:10], "<u4")
    assert len(message) == 10 + header_bytes + payload + 16


@pytest.mark.parametrize("codec", ["modint", "topk", "rot1bit", "subspace"])
def test_changes_are_shorter_than_weights(plans, initial, codec):
    downlink = plans[codec].downlink
    broadcast = broadcast_of(downlink, initial)
    short, long = (len(downlink.message(broadcast, [*initial], behind)) for behind in (False, True))
    assert short < long / 2


@pytest.mark.parametrize("codec", ["fp32", "modint", "topk"])
@pytest.mark.parametrize("behind", [False, True])
def test_an_altered_message_is_refused(plans, initial, codec, behind):
    downlink = plans[codec].downlink
    broadcast = broadcast_of(downlink, initial)
    message = downlink.message(broadcast, ["fusion"], behind)
    assert downlink.receive(message, broadcast.held)
    for place in (0, 5, len(message) // 2, len(message) - 1):
        altered = bytearray(message)
        altered[place] ^= 1
        with pytest.raises(ProtocolError):
            downlink.receive(bytes(altered), broadcast.held)
    with pytest.raises(ProtocolError):
        downlink.receive(message[:-1], broadcast.held)


def test_a_payload_of_another_length_is_refused_though_its_digest_fits(plans, initial):
    downlink = plans["fp32"].downlink
    forged = wire.pack(
        wire.Message("server", ROUND, "fp32", {"fusion": bytes(8)}, {"fusion": 3}, steps=0)
    )
    with pytest.raises(ProtocolError, match="8 bytes for 3 float32"):
        downlink.receive(forged, initial)


@pytest.mark.parametrize("codec", CODECS)
def test_a_broadcast_asked_for_twice_is_the_same(plans, initial, codec):
    plan = plans[codec]
    state = ServerState(held=initial if plan.downlink.sends_changes else {})
    server = ParameterServer(plan, Checkpoint(ROUND - 1, moved(initial, seed=1), state))
    first, again = server.broadcast(), server.broadcast()
    assert bool(first.changes) == (codec != "fp32")
    for behind in (False, True):
        messages = [plan.downlink.message(b, [*initial], behind) for b in (first, again)]
        assert messages[0] == messages[1]


@pytest.mark.parametrize("codec", CODECS)
def test_over_rounds_server_and_institutions_hold_the_same(plans, initial, codec):
    """Institutions keep what they received, and never see the server's copy."""
    plan = plans[codec]
    side = ServerSide(plan, Checkpoint(0, initial))
    server = side.server
    kept = {p.name: {} for p in plan.participants}
    for number in range(1, 5):
        broadcast = server.broadcast()
        believed = plan.downlink.weights(broadcast)
        for participant in plan.participants:
            who, owned = participant.name, plan.blocks_of(participant)
            missed = who == "med-01" and number == 2
            if missed:
                continue
            behind = who == "med-01" and number == 3
            message = plan.downlink.message(broadcast, owned, behind)
            # Before the first broadcast nobody holds anything; its names tell blocks from the rest.
            before = kept[who] or dict.fromkeys(owned, np.zeros(0, np.float32))
            kept[who] = plan.downlink.receive(message, before).weights
            same(kept[who], {name: believed[name] for name in owned})
        side.finish(number, [])
        server.weights = moved(server.weights, seed=number)


def walk(downlink, initial, rounds):
    """Walk at random; yields how far institutions are off, with and without the server's copy."""
    weights, held, blind = initial, initial, initial
    for number in range(1, rounds + 1):
        following = moved(weights, seed=number)
        step = {name: following[name] - weights[name] for name in weights}
        weights = following
        held = downlink.applied(held, downlink.changes(weights, held, number), number)
        zero = {name: np.zeros_like(v) for name, v in weights.items()}
        blind = downlink.applied(blind, downlink.changes(step, zero, number), number)
        yield distance(weights, held), distance(weights, blind)


@pytest.mark.parametrize("codec", CONTRACTIONS)
def test_errors_do_not_add_up_over_rounds(plans, initial, codec):
    held, blind = zip(*walk(plans[codec].downlink, initial, rounds=30), strict=True)
    assert held[0] == blind[0] > 0
    # A lossy step leaves some of the last steps' errors to the next one: not one more with 30.
    assert max(held) < 2 * held[0]
    assert max(held[20:]) < 1.1 * max(held[5:10])
    # The control: the same codec on the steps alone. Independent errors grow as the square root.
    assert blind[-1] > 4 * blind[0]
    assert blind[-1] > 1.5 * blind[9]


@pytest.mark.parametrize("codec", CONTRACTIONS)
def test_weights_that_stand_still_arrive_whole(plans, initial, codec):
    downlink, weights, held = plans[codec].downlink, moved(initial, seed=1), initial
    off = [distance(weights, held)]
    for number in range(1, 31):
        held = downlink.applied(held, downlink.changes(weights, held, number), number)
        off.append(distance(weights, held))
    # Float32 does not resolve changes below its own rounding of the weights.
    resolution = 1e-6 * distance(weights, {n: np.zeros_like(v) for n, v in weights.items()})
    assert all(after <= before + resolution for before, after in itertools.pairwise(off))
    assert off[-1] < 0.25 * off[0]


def test_a_subspace_loses_only_what_lies_outside_of_it(plans, initial):
    """It suits an uplink in the same subspace, from which nothing leads out."""
    downlink, weights, held = plans["subspace"].downlink, initial, initial
    for number in range(1, 11):
        step = moved({n: np.zeros_like(v) for n, v in initial.items()}, seed=number)
        inside = downlink.applied(
            {n: np.zeros_like(v) for n, v in step.items()},
            {n: downlink.encode(v, n, number) for n, v in step.items()},
            number,
        )
        weights = {n: v + inside[n] for n, v in weights.items()}
        held = downlink.applied(held, downlink.changes(weights, held, number), number)
    assert distance(weights, held) < 1e-4 * distance(weights, initial)


def test_a_codec_that_enlarges_what_it_lost_is_refused():
    """A sketch's error is a multiple of what is sketched; sent again, it would run away."""
    with pytest.raises(InputError, match=r"compression\.downlink\.codec.*countsketch"):
        tiny("compression.downlink.codec=countsketch")
