"""Whole rounds of sums on ciphertexts: what is learnt, by whom, and what it weighs."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest

from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.checkpoints.checkpoint import Checkpoint
from fedfuse_ray.federation.institution.institution import Institution, NetCache
from fedfuse_ray.federation.institution.training import RoundResult
from fedfuse_ray.federation.messages import wire
from fedfuse_ray.federation.messages.updates import Update
from fedfuse_ray.federation.modes.encrypted import (
    EncryptedGathering,
    EncryptedMember,
    EncryptedStep,
)
from fedfuse_ray.federation.modes.exchange import Answer, Turn
from fedfuse_ray.federation.modes.outcome import EVERYONE
from fedfuse_ray.federation.rounds.serial import SerialExecutor
from fedfuse_ray.federation.server.server import ParameterServer
from fedfuse_ray.models.initial import initial_blocks
from fedfuse_ray.privacy.mechanisms.homomorphic import STEP, KeyPair, PublicKey
from fedfuse_ray.runs import running
from tests.support.federations import dataset_of, plan_of, random_blocks, rows_of, scores_of, tiny

pytest.importorskip("tenseal")
CKKS = "compression.encryption=ckks"
TABLES = ("rounds.parquet", "institutions.parquet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "encrypted"
    running.run(tiny(CKKS), folder)
    return folder


class Dying(SerialExecutor):
    """Dies before the second round."""

    def train(self, round, attendance=EVERYONE, epoch=0):
        if round == 2:
            raise KeyboardInterrupt
        return super().train(round, attendance, epoch)


def test_new_keys_and_a_resume_give_the_same_result_and_the_same_bytes(folder, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        running.run(tiny(CKKS), tmp_path / "run", executor=Dying())
    running.resume(tmp_path / "run")
    assert scores_of(tmp_path / "run") == scores_of(folder)
    for table in TABLES:
        assert rows_of(tmp_path / "run", table) == rows_of(folder, table)


@pytest.mark.ray
def test_ray_gives_what_this_process_gives(ray_address, folder, tmp_path):
    running.run(tiny(CKKS, "execution.executor=ray"), tmp_path / "run")
    assert scores_of(tmp_path / "run") == scores_of(folder)
    for table in TABLES:
        assert rows_of(tmp_path / "run", table) == rows_of(folder, table)


def test_the_model_is_that_of_plain_sums_but_for_rounding():
    weights = {}
    for settings in ((), (CKKS,)):
        plan = plan_of(tiny("training.rounds=1", *settings))
        executor = SerialExecutor()
        executor.start(plan, dataset_of(plan.experiment).folder)
        executor.load(None)
        executor.train(1)
        weights[settings] = executor.weights
    for name, plain in weights[()].items():
        np.testing.assert_allclose(weights[CKKS,][name], plain, atol=3 * STEP)
    assert any((weights[CKKS,][n] != v).any() for n, v in weights[()].items())


def test_ciphertexts_and_keys_are_counted(folder):
    told = json.loads((folder / "summary.json").read_text())["communication"]
    assert told["codec"] == "ckks"
    # Eleven blocks, each a ciphertext of 4096 coefficients in two halves of 54 bits.
    assert told["payload_bytes_per_round"] >= 11 * 2 * 4096 * 54 / 8
    assert told["uplink_bytes_per_round"] > told["payload_bytes_per_round"] + 100_000
    assert told["uplink_bytes_per_round"] > 10 * told["fp32_uplink_bytes_per_round"]


class Untrained(Institution):
    """Sends a random update."""

    def train(self, round, received, own_controls):
        sizes = {block: vector.size for block, vector in received.weights.items()}
        seed = list(self.plan.by_name).index(self.name)
        return RoundResult(Update(random_blocks(sizes, seed)), 0.0, 1)


class Noting(ParameterServer):
    """Notes the sums that it steps along."""

    def step(self, round, total, state):
        self.total = total
        super().step(round, total, state)


class Rig:
    """A round between a server and members that encrypt random updates."""

    def __init__(self, *settings):
        self.plan = plan_of(tiny(CKKS, *settings))
        self.weights = initial_blocks(self.plan.spec)
        self.server = Noting(self.plan, Checkpoint(0, dict(self.weights)))
        self.gathering = EncryptedGathering(self.server, 1)
        nets, data = NetCache(self.plan), dataset_of(self.plan.experiment)
        first = self.turn(Answer())
        self.members = {
            p.name: EncryptedMember(Untrained(self.plan, p, data, nets), first)
            for p in self.plan.participants
        }

    def turn(self, answer):
        return Turn(1, answer, self.server.broadcast())

    def taken(self, step, answer, names):
        sent = [(n, self.members[n].take(step, self.turn(answer)).message) for n in names]
        return [(n, data) for n, data in sent if data is not None]

    def publish(self, *others):
        sent = self.taken(EncryptedStep.PUBLISH, Answer(), self.members)
        return self.gathering.close(EncryptedStep.PUBLISH, [*others, *sent])

    def updates(self, key, names=("med-01", "med-02", "mat-01")):
        return self.taken(EncryptedStep.ENCRYPT, key, names)

    def added(self, sent):
        return self.gathering.close(EncryptedStep.ENCRYPT, sent)

    def finish(self, answer):
        return self.gathering.finish(self.taken(EncryptedStep.DECRYPT, answer, self.members))


def test_the_server_can_not_read_and_the_holder_is_sent_sums_alone():
    rig = Rig()
    key = rig.publish()
    answer = rig.added(rig.updates(key))
    assert not rig.gathering._public.context.is_private()
    assert not PublicKey.read(key.shared).context.is_private()
    assert list(answer.apart) == [rig.plan.key_holder] == ["med-01"]
    assert answer.shared == b""
    assert wire.unpack(answer.apart["med-01"]).institution == "server"
    closed = rig.finish(answer)
    assert rig.server.total.survivors["fusion"] == ("med-01", "med-02", "mat-01")
    assert set(closed.aggregation.accepted) == set(rig.plan.by_name)


def test_who_drops_out_is_not_in_the_sum():
    rig = Rig()
    key = rig.publish()
    closed = rig.finish(rig.added(rig.updates(key, ["med-01"])))
    assert closed.dropouts == ("med-02", "mat-01")
    assert set(rig.server.total.survivors["fusion"]) == {"med-01"}
    assert (rig.server.weights["fusion"] != rig.weights["fusion"]).any()
    np.testing.assert_array_equal(
        rig.server.weights["head/materials"], rig.weights["head/materials"]
    )


def test_a_round_without_the_holder_reveals_nothing():
    rig = Rig()
    assert rig.gathering.close(EncryptedStep.PUBLISH, []) is None
    rig.gathering.lost()
    assert not rig.server.total.sums
    for name, vector in rig.weights.items():
        np.testing.assert_array_equal(rig.server.weights[name], vector)


def test_another_institutions_key_and_altered_updates_are_refused():
    rig = Rig()
    key = rig.publish(("med-02", KeyPair().public))
    sent = rig.updates(key)
    sent += [("med-02", sent[1][1]), ("mat-01", sent[0][1]), ("mat-01", sent[2][1][:-1] + b"?")]
    refused = rig.finish(rig.added(sent)).aggregation.refused
    assert [who for who, _ in refused] == ["med-02", "med-02", "mat-01", "mat-01"]
    reasons = " ".join(reason for _, reason in refused)
    for said in ("who holds the key", "two updates", "in the name of med-01", "altered"):
        assert said in reasons
    assert rig.server.total.survivors["fusion"] == ("med-01", "med-02", "mat-01")


@pytest.mark.parametrize("private", [False, True])
def test_deadlines_and_noise_go_with_it(tmp_path, private):
    settings = ["network.aggregation={kind: deadline, deadline_seconds: 0.3}", "training.rounds=2"]
    settings += ["network.links={med-02: {up_mbps: 1, down_mbps: 1}}"]
    if private:
        settings += ["privacy.mode=local-update"]
    paradigm = "fedfuse" if private else "fedfuse_nonprivate"
    summary = running.run(tiny(CKKS, *settings, paradigm=paradigm), tmp_path / "run")
    rows = rows_of(tmp_path / "run", "institutions.parquet")
    assert {r["status"] for r in rows if r["institution"] == "med-02"} == {"late"}
    assert summary.privacy.private == private


def test_without_tenseal_the_remedy_is_named_before_anything_is_prepared(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs TenSEAL: pip install 'fedfuse-ray\[he\]'") as told:
        tiny(CKKS)
    assert (told.value.field, told.value.value) == ("compression.encryption", "ckks")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("compression.codec=modint",), "use codec fp32"),
        (("privacy.mode=client", "privacy.target_epsilon=1", "paradigm=fedfuse"), "clip"),
        (("paradigm=fedfuse",), "masks"),
        (("strategy.kind=scaffold",), "control variates"),
        (("network.aggregation.kind=buffered-async",), "mixes rounds"),
        (("strategy.weighting=loss",), "would weigh"),
        (("selection={kind: cyclic}",), "key's holder"),
        (("compression.encryption=rsa",), "encryption"),
    ],
)
def test_what_it_can_not_follow_is_refused(settings, said):
    with pytest.raises(InputError, match=said):
        tiny(CKKS, *settings)
