"""The parameter server: what it sums, and what it turns away."""

from __future__ import annotations

import itertools
import os
import pickle

import numpy as np
import pytest

from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.federation.checkpoints.checkpoint import Checkpoint
from fedfuse_ray.federation.messages import wire
from fedfuse_ray.federation.modes.sides import ServerSide
from fedfuse_ray.models.initial import initial_blocks
from tests.support.federations import message, packed, plan_of, random_blocks, tiny

NAMES = ("med-01", "med-02", "mat-01")


@pytest.fixture(scope="module")
def plan():
    return plan_of(tiny())


@pytest.fixture(scope="module")
def initial(plan):
    return initial_blocks(plan.spec)


@pytest.fixture
def server(plan, initial):
    return ServerSide(plan, Checkpoint(0, initial))


def update_of(plan, initial, name, seed=0):
    sizes = {block: initial[block].size for block in plan.blocks_of(plan.by_name[name])}
    return random_blocks(sizes, seed + NAMES.index(name))


def payloads(plan, initial, names=NAMES, round=1):
    return {n: message(plan, n, update_of(plan, initial, n), round=round) for n in names}


def test_each_block_becomes_the_weighted_mean_over_its_owners(plan, initial, server):
    sent = payloads(plan, initial)
    said = server.finish(1, list(sent.items())).aggregation
    for block, owners in plan.owners.items():
        wanted = initial[block].astype(np.float64)
        for who in owners:
            wanted += plan.fractions[block][who] * update_of(plan, initial, who)[block]
        np.testing.assert_allclose(server.server.weights[block], wanted, rtol=1e-4, atol=1e-5)
    assert server.server.round == 1
    assert said.accepted == {name: len(data) for name, data in sent.items()}
    assert said.refused == ()


def test_the_order_of_arrival_does_not_matter(plan, initial):
    digests = set()
    for order in itertools.permutations(payloads(plan, initial).items()):
        server = ServerSide(plan, Checkpoint(0, initial))
        assert tuple(server.finish(1, order).aggregation.accepted) == tuple(
            p.name for p in plan.participants
        )
        digests.add(server.server.sha256())
    assert len(digests) == 1


def test_partial_participation_averages_over_who_is_there(plan, initial, server):
    said = server.finish(1, [("med-02", payloads(plan, initial)["med-02"])]).aggregation
    assert list(said.accepted) == ["med-02"]
    update = update_of(plan, initial, "med-02")
    for block in initial:
        wanted = initial[block] + update[block] if block in update else initial[block]
        np.testing.assert_allclose(server.server.weights[block], wanted, rtol=1e-4, atol=1e-5)


def refusal(server, bad, good, sender="med-01"):
    """Send a bad update beside a good one; the good one goes on, the bad one is reported."""
    said = server.finish(1, [(sender, bad), ("med-02", good)]).aggregation
    assert list(said.accepted) == ["med-02"]
    ((who, reason),) = said.refused
    return who, reason


def test_a_stranger_is_refused(plan, initial, server):
    good = payloads(plan, initial)["med-02"]
    who, reason = refusal(server, packed("eve", {"fusion": initial["fusion"]}), good, "eve")
    assert who == "eve"
    assert "not a participant" in reason


@pytest.mark.parametrize("round", [0, 2])
def test_another_round_is_refused(plan, initial, server, round):
    stale = message(plan, "med-01", update_of(plan, initial, "med-01"), round=round)
    who, reason = refusal(server, stale, payloads(plan, initial)["med-02"])
    assert who == "med-01"
    assert f"round {round}" in reason


def test_a_second_update_of_one_sender_is_refused(plan, initial, server):
    sent = payloads(plan, initial)
    again = message(plan, "med-01", update_of(plan, initial, "med-01", seed=9))
    said = server.finish(1, [*sent.items(), ("med-01", again)]).aggregation
    assert said.accepted.keys() == set(NAMES)
    assert said.refused == (("med-01", "sent two updates in round 1"),)
    once = ServerSide(plan, Checkpoint(0, initial))
    once.finish(1, list(sent.items()))
    assert server.server.sha256() == once.server.sha256()


def test_a_block_of_others_is_refused(plan, initial, server):
    foreign = {"encoder/mri": np.zeros_like(initial["encoder/mri"])}
    assert "encoder/mri" in plan.owners
    bad = message(plan, "mat-01", update_of(plan, initial, "mat-01"))
    bad_blocks = packed("mat-01", foreign)
    good = payloads(plan, initial)["med-02"]
    who, reason = refusal(server, bad_blocks, good, "mat-01")
    assert who == "mat-01"
    assert "does not own" in reason
    assert bad != bad_blocks


def test_a_block_that_does_not_exist_is_refused(plan, initial, server):
    bad = packed("med-01", {"encoder/x-ray": np.zeros(3, np.float32)})
    who, reason = refusal(server, bad, payloads(plan, initial)["med-02"])
    assert who == "med-01"
    assert "encoder/x-ray" in reason


@pytest.mark.parametrize("extra", [-1, 1])
def test_a_block_of_the_wrong_size_is_refused(plan, initial, server, extra):
    bad = packed("med-01", {"fusion": np.zeros(initial["fusion"].size + extra, np.float32)})
    who, reason = refusal(server, bad, payloads(plan, initial)["med-02"])
    assert who == "med-01"
    assert "fusion" in reason


@pytest.mark.parametrize("nbytes", [0, 3, 4])
def test_a_payload_that_is_not_as_long_as_it_says_is_refused(plan, initial, server, nbytes):
    bad = wire.pack(
        wire.Message(
            institution="med-01",
            round=1,
            codec="fp32",
            blocks={"fusion": b"\0" * nbytes},
            sizes={"fusion": initial["fusion"].size},
            steps=1,
        )
    )
    who, reason = refusal(server, bad, payloads(plan, initial)["med-02"])
    assert who == "med-01"
    assert f"{nbytes} bytes" in reason
    assert f"{initial['fusion'].size} float32 values" in reason


def test_an_update_in_another_codec_is_refused(plan, initial, server):
    vector = np.zeros(initial["fusion"].size, "<f4")
    bad = wire.pack(
        wire.Message("med-01", 1, "zip", {"fusion": vector.tobytes()}, {"fusion": vector.size}, 1)
    )
    who, reason = refusal(server, bad, payloads(plan, initial)["med-02"])
    assert who == "med-01"
    assert "zip" in reason


def test_an_altered_update_is_refused_and_its_sender_named(plan, initial, server):
    altered = bytearray(payloads(plan, initial)["med-01"])
    altered[-20] ^= 1
    who, reason = refusal(server, bytes(altered), payloads(plan, initial)["med-02"])
    assert who == "med-01"
    assert "altered" in reason


def test_an_update_in_the_name_of_another_is_refused(plan, initial, server):
    sent = payloads(plan, initial)
    who, reason = refusal(server, sent["mat-01"], sent["med-02"])
    assert (who, reason) == ("med-01", "sent an update in the name of mat-01")


class Bomb:
    """What runs code in whoever unpickles it."""

    def __reduce__(self):
        return os.abort, ()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_refused_and_never_loaded(plan, initial, server, protocol):
    bomb = pickle.dumps(Bomb(), protocol)
    sent = payloads(plan, initial)
    inside = wire.Message("med-01", 1, "fp32", {"fusion": bomb}, {"fusion": len(bomb) // 4}, 1)
    for bad in (bomb, wire.pack(inside)):
        other = ServerSide(plan, Checkpoint(0, initial))
        who, _ = refusal(other, bad, sent["med-02"])
        assert who == "med-01"


def test_an_asynchronous_server_takes_no_update_twice(initial):
    asynchronous = "network.aggregation={kind: buffered-async, buffer_size: 2}"
    plan = plan_of(tiny(asynchronous))
    server = ServerSide(plan, Checkpoint(0, initial))
    first, second = (payloads(plan, initial, round=round) for round in (1, 2))
    assert server.finish(1, [("med-01", first["med-01"])]).aggregation.refused == ()
    sent = [("med-01", first["med-01"]), ("med-02", first["med-02"])]
    said = ServerSide(plan, server.server.checkpoint({})).finish(2, sent).aggregation
    assert list(said.accepted) == ["med-02"]
    assert said.refused == (("med-01", "sent its update of round 1 again"),)
    assert server.finish(2, [("med-01", second["med-01"])]).aggregation.refused == ()


def test_a_round_out_of_turn_changes_nothing(plan, initial, server):
    before = server.server.sha256()
    for round in (0, 2):
        with pytest.raises(ProtocolError, match=f"round {round} can't follow round 0"):
            server.finish(round, list(payloads(plan, initial, round=round).items()))
    assert (server.server.sha256(), server.server.round) == (before, 0)


def test_a_round_without_one_good_update_changes_nothing(plan, initial, server):
    before = server.server.sha256()
    with pytest.raises(ProtocolError, match="no update that could be accepted"):
        server.finish(1, [("med-01", b"junk")])
    assert (server.server.sha256(), server.server.round) == (before, 0)


@pytest.mark.parametrize("kind", ["fedavg", "scaffold", "fedadam"])
def test_a_server_from_its_checkpoint_goes_on_alike(initial, kind):
    plan = plan_of(tiny(f"strategy.kind={kind}"))
    server = ServerSide(plan, Checkpoint(0, initial))
    server.finish(1, list(payloads(plan, initial).items()))
    other = ServerSide(plan, server.server.checkpoint({}))
    for each in (server, other):
        each.finish(2, list(payloads(plan, initial, round=2).items()))
    assert server.server.sha256() == other.server.sha256()
    names = [each.server.broadcast().vectors.keys() for each in (server, other)]
    assert names[0] == names[1]


def test_fednova_weighs_steps_block_by_block(initial):
    plan = plan_of(tiny("strategy.kind=fednova"))
    server = ServerSide(plan, Checkpoint(0, initial))
    steps = {"med-01": 2, "med-02": 10, "mat-01": 5}
    sent = [(n, message(plan, n, update_of(plan, initial, n), steps=steps[n])) for n in NAMES]
    server.finish(1, sent)
    for block, fractions in plan.fractions.items():
        mean = sum(f * update_of(plan, initial, n)[block] for n, f in fractions.items())
        effective = sum(f * steps[n] for n, f in fractions.items())
        wanted = initial[block] + effective * mean
        np.testing.assert_allclose(server.server.weights[block], wanted, rtol=1e-4, atol=1e-4)
