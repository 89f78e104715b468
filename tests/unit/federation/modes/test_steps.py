"""The steps of every mode: in which a mistyped one does nothing, and to which another mode adds."""

from __future__ import annotations

import dataclasses
import importlib.util
from enum import StrEnum
from typing import ClassVar

import numpy as np
import pytest

from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.federation.checkpoints.checkpoint import Checkpoint
from fedfuse_ray.federation.institution.institution import Institution, NetCache
from fedfuse_ray.federation.messages import wire
from fedfuse_ray.federation.messages.records import Reply
from fedfuse_ray.federation.messages.updates import Kept, Update
from fedfuse_ray.federation.modes import MODES, mode_of
from fedfuse_ray.federation.modes.exchange import Answer, Mode, Turn, as_step
from fedfuse_ray.federation.modes.outcome import Closed
from fedfuse_ray.federation.modes.sides import InstitutionSide, ServerSide
from fedfuse_ray.federation.plan.transfer import first_weights
from fedfuse_ray.federation.rounds.serial import SerialExecutor
from fedfuse_ray.federation.server.server import Aggregation
from fedfuse_ray.federation.server.summing import Total
from tests.support.federations import dataset_of, packed, plan_of, tiny

needs_tenseal = pytest.mark.skipif(importlib.util.find_spec("tenseal") is None, reason="extra")
SETTINGS = {
    "plain": ((), "fedfuse_nonprivate"),
    "buffered": (("network.aggregation.kind=buffered-async",), "fedfuse_nonprivate"),
    "masked": ((), "fedfuse"),
    "encrypted": (("compression.encryption=ckks",), "fedfuse_nonprivate"),
}
EVERY_MODE = [pytest.param(m, marks=[needs_tenseal] * (m == "encrypted")) for m in MODES]
MISTYPED = ("", "mistyped step", "TRAIN", "advertise ", "unmasking")


def planned(mode):
    settings, paradigm = SETTINGS[mode]
    plan = plan_of(tiny(*settings, paradigm=paradigm))
    assert plan.mode == mode
    return plan


class Round:
    """The first round of a federation, step by step."""

    def __init__(self, plan):
        nets, data = NetCache(plan), dataset_of(plan.experiment)
        self.plan = plan
        self.sides = [InstitutionSide(Institution(plan, p, data, nets)) for p in plan.participants]
        self.server = ServerSide(plan, Checkpoint(0, first_weights(plan.spec)))

    def play(self, between=lambda turn: None):
        """Play the round; `between` is called before every step and at the end of the last."""
        *steps, last = mode_of(self.plan).names
        answer, broadcast = Answer(), self.server.server.broadcast()
        for step in (*steps, last):
            turn = Turn(1, answer, broadcast)
            between(turn)
            replies = [(side.institution.name, side.take(step, turn)) for side in self.sides]
            messages = [(who, r.message) for who, r in replies if r.message is not None]
            between(turn)
            if step == last:
                return self.server.finish(1, messages)
            answer = self.server.close(step, 1, messages)
            assert answer is not None


@pytest.mark.parametrize("mode", EVERY_MODE)
def test_an_unknown_step_is_refused_on_both_sides_and_changes_nothing(mode):
    plan, tried = planned(mode), []
    whole, disturbed = Round(plan), Round(plan)
    whole.play()

    def mistype(turn):
        server = disturbed.server.server
        before = server.sha256(), server.state, server.round
        for step in MISTYPED:
            for side in disturbed.sides:
                with pytest.raises(ProtocolError, match=f"no step '{step}'"):
                    side.take(step, turn)
            with pytest.raises(ProtocolError, match=f"no step '{step}'"):
                disturbed.server.close(step, 1, [(n, b"?") for n in plan.by_name])
            tried.append(step)
        assert (server.sha256(), server.state, server.round) == before

    closed = disturbed.play(mistype)
    assert len(tried) == 2 * len(MISTYPED) * len(mode_of(plan).names)
    assert disturbed.server.server.sha256() == whole.server.server.sha256()
    assert disturbed.server.server.round == 1
    assert closed.aggregation.refused == ()
    assert closed.aggregation.accepted.keys() == set(plan.by_name)


@pytest.mark.parametrize("mode", EVERY_MODE)
def test_neither_half_of_a_mode_knows_an_unknown_step_by_itself(mode):
    """What stands behind the sides refuses it too, so that none falls through to the last step."""
    plan = planned(mode)
    play = Round(plan)
    turn, kind = Turn(1, Answer(), play.server.server.broadcast()), mode_of(plan)
    member, gathering = (
        kind.member(play.sides[0].institution, turn),
        kind.gathering(play.server.server, 1),
    )
    for step in MISTYPED:
        with pytest.raises(ProtocolError, match=f"no step '{step}'"):
            member.take(step, turn)
        # A plain round answers no step at all.
        with pytest.raises(ProtocolError, match=f"step '{step}'"):
            gathering.close(step, [])


class EchoStep(StrEnum):
    """The steps of a mode that the library does not have."""

    ASK = "ask"
    TELL = "tell"


class EchoMember:
    """Asks for the round's number, and sends that much of every block."""

    def __init__(self, institution, turn):
        self.institution = institution

    def take(self, step, turn):
        me = self.institution
        match as_step(EchoStep, step):
            case EchoStep.ASK:
                return Reply(me.name.encode())
            case EchoStep.TELL:
                told = turn.answer.to(me.name)
                assert told == f"{me.name} in round {turn.round}".encode()
                received = me.receive(turn.broadcast, turn.behind)
                raw = Update({n: v * 0 + turn.round for n, v in received.weights.items()})
                sent = me.plan.transforms.sent(raw, me.name, turn.round)
                kept = Kept(memory={"rounds": np.float32([turn.round])})
                return Reply(packed(me.name, sent.on_wire(), round=turn.round), kept=kept)


class EchoGathering:
    """Tells everybody the round's number, and adds up what comes."""

    survivors = ()
    heard: ClassVar[list[tuple[int, tuple[str, ...]]]] = []

    def __init__(self, server, round):
        self.server, self.round = server, round

    def close(self, step, messages):
        assert as_step(EchoStep, step) is EchoStep.ASK
        names = [data.decode() for _, data in messages]
        answers = {n: f"{n} in round {self.round}".encode() for n in names}
        return Answer(apart=answers)

    def finish(self, messages):
        messages = list(messages)
        checked = {who: wire.unpack(data) for who, data in messages}
        self.heard.append((self.round, tuple(checked)))
        self.server.step(self.round, self.server.add_up(checked, self.round), self.server.state)
        return Closed(Aggregation({who: len(data) for who, data in messages}, ()))

    def lost(self):
        self.server.step(self.round, Total(), self.server.state)
        return Closed(Aggregation({}, ()))


def test_another_mode_is_one_entry(monkeypatch):
    echo = Mode(EchoStep, EchoStep.TELL, member=EchoMember, gathering=EchoGathering)
    monkeypatch.setitem(MODES, "echo", echo)
    monkeypatch.setattr(EchoGathering, "heard", [])
    plan = dataclasses.replace(planned("plain"), mode="echo")
    executor = SerialExecutor()
    executor.start(plan, dataset_of(plan.experiment).folder)
    executor.load(None)
    first = executor.weights
    outcomes = [executor.train(round) for round in (1, 2)]
    names = tuple(plan.by_name)
    assert EchoGathering.heard == [(1, names), (2, names)]
    assert [tuple(o.aggregation.accepted) for o in outcomes] == [names, names]
    for name, vector in executor.weights.items():
        # The mean of equal updates is that update: 1 in the first round, 2 in the second.
        np.testing.assert_allclose(vector, first[name] + 3, rtol=1e-5)
    assert {n: float(k.memory["rounds"][0]) for n, k in executor.kept.items()} == dict.fromkeys(
        names, 2.0
    )
