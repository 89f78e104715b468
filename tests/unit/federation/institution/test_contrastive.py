"""Contrastive rounds: the loss by hand, who takes part, what moves, what goes on after them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedfuse_ray.config import load
from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.checkpoints import checkpoint as checkpoints
from fedfuse_ray.federation.checkpoints.checkpoint import Checkpoint
from fedfuse_ray.federation.institution.alone import train_alone
from fedfuse_ray.federation.institution.contrastive import (
    ContrastiveTraining,
    contrastive_loss,
    in_round,
)
from fedfuse_ray.federation.modes.sides import ServerSide
from fedfuse_ray.federation.strategies import LocalRule
from fedfuse_ray.models.initial import initial_blocks
from fedfuse_ray.models.net import CrossModalNet
from fedfuse_ray.runs.running import Silent, resume, run
from tests.support.federations import packed, plan_of, rows_of, scores_of, tiny
from tests.support.local_setup import net_of, specimens, training_of

ROUNDS = "training.contrastive.rounds={}"
TWO_OF_THREE = {"rounds": 3, "contrastive": {"rounds": 2}}


def embeddings(count=6, slots=3, dim=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    present = torch.rand(count, slots, generator=generator) < 0.7
    return torch.randn(count, slots, dim, generator=generator), present


def by_hand(embedded, present, temperature):
    """Every anchor's -log softmax at its own partner, one after the other."""
    x = embedded.numpy().astype(np.float64)
    x /= np.linalg.norm(x, axis=2, keepdims=True)
    halves = []
    slots = present.shape[1]
    for one in range(slots):
        for other in range(slots):
            rows = [i for i in range(len(x)) if present[i, one] and present[i, other]]
            if one == other or len(rows) < 2:
                continue
            for i in rows:
                scores = np.array([x[i, one] @ x[j, other] for j in rows]) / temperature
                halves.append(np.log(np.exp(scores).sum()) - scores[rows.index(i)])
    return float(np.mean(halves))


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_loss_is_symmetric_infonce_over_present_pairs(temperature):
    embedded, present = embeddings()
    assert 0 < int(present.sum()) < present.numel()
    got = float(contrastive_loss(embedded, present, temperature))
    assert got == pytest.approx(by_hand(embedded, present, temperature), rel=1e-5)


def test_what_is_absent_is_neither_asked_for_nor_offered():
    embedded, present = embeddings()
    embedded.requires_grad_()
    loss = contrastive_loss(embedded, present, 0.1)
    loss.backward()
    assert embedded.grad is not None
    assert not embedded.grad[~present].any()
    assert embedded.grad[present].any()
    other = torch.where(present[..., None], embedded.detach(), torch.tensor(9.0))
    torch.testing.assert_close(contrastive_loss(other, present, 0.1), loss.detach())


def test_equal_embeddings_of_a_specimen_are_best():
    one, _ = embeddings(slots=1)
    alike, all_there = one.expand(-1, 3, -1), torch.ones(6, 3, dtype=torch.bool)
    strangers = torch.stack([alike[:, 0], alike[:, 1].roll(1, 0), alike[:, 2].roll(2, 0)], dim=1)
    best, worst = (contrastive_loss(e, all_there, 0.1) for e in (alike, strangers))
    assert float(best) < 0.2 < 5 < float(worst)


@pytest.mark.parametrize("present", [[[1, 0], [0, 1]], [[1, 1], [1, 0]]])
def test_without_two_pairs_there_is_nothing_to_learn(present):
    embedded = torch.randn(2, 2, 5, requires_grad=True)
    loss = contrastive_loss(embedded, torch.tensor(present, dtype=torch.bool), 0.1)
    assert float(loss) == 0
    assert not loss.requires_grad


def test_an_institution_learns_pairs_without_labels_and_sends_encoders_only():
    training = training_of(data=specimens(24, missing=False), learning_rate=3e-3, **TWO_OF_THREE)
    paired = in_round(training, 2)
    assert isinstance(paired, ContrastiveTraining)
    assert in_round(training, 3) is training
    start = training.net.flat.clone()
    losses = [paired.run_round(1, LocalRule(), {}, {}).loss]
    # Wrong labels change nothing.
    training.data.labels.zero_()
    again = training.net.flat.clone()
    training.net.flat.copy_(start)
    result = paired.run_round(1, LocalRule(), {}, {})
    assert torch.equal(training.net.flat, again)
    assert not result.update.controls
    assert set(result.update.weights) == {"encoder/ct", "encoder/mri"}
    assert all(vector.any() for vector in result.update.weights.values())
    losses += [paired.run_round(1, LocalRule(), {}, {}).loss for _ in range(30)]
    assert losses[-1] < 0.7 * losses[0]


def test_who_has_one_modality_takes_no_part():
    spec = net_of().spec
    narrow = CrossModalNet(spec, "medical", ("mri",))
    narrow.set_blocks(initial_blocks(spec))
    training = training_of(net=narrow, **TWO_OF_THREE)
    assert in_round(training, 2) is None
    assert in_round(training, 3) is training


class CutAfterTwo(Silent):
    def advanced(self, done, total, what, rows):
        if done == 2:
            raise KeyboardInterrupt


def test_contrastive_rounds_move_paired_encoders_only_and_go_on_after_a_cut(tmp_path):
    experiment = tiny(ROUNDS.format(2), "training.rounds=4")
    whole = run(experiment, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(experiment, tmp_path / "cut", progress=CutAfterTwo())
    assert resume(tmp_path / "cut").weights_sha256 == whole.weights_sha256
    assert scores_of(tmp_path / "cut") == scores_of(tmp_path / "whole")
    steps = {(r["round"], r["institution"]): r["steps"] for r in institutions(tmp_path / "whole")}
    assert [bool(steps[n, "med-02"]) for n in (1, 2, 3, 4)] == [False, False, True, True]
    assert all(steps[n, "med-01"] and steps[n, "mat-01"] for n in (1, 2, 3, 4))


def institutions(folder):
    return rows_of(folder, "institutions.parquet")


@pytest.mark.parametrize("trainable", [True, False])
def test_heads_and_fusion_wait_for_the_supervised_rounds(tmp_path, trainable):
    settings = (ROUNDS.format(1), "training.rounds=2", f"model.encoder.trainable={trainable}")
    run(tiny(*settings), tmp_path)
    first = initial_blocks(plan_of(tiny(*settings)).spec)
    after = checkpoints.read(checkpoints.latest(tmp_path / "checkpoints", 1)).weights
    moved = {name for name in first if not np.array_equal(first[name], after[name])}
    assert moved == {name for name in first if name.startswith("encoder/")}


def test_a_round_in_which_nobody_has_pairs_changes_nothing():
    plan = plan_of(tiny(ROUNDS.format(1), "strategy={kind: fedavg, server_momentum: 0.9}"))
    side = ServerSide(plan, Checkpoint(0, initial_blocks(plan.spec)))
    server = side.server
    before = server.sha256()
    said = side.finish(1, [("med-02", packed("med-02", {}))]).aggregation
    assert list(said.accepted) == ["med-02"]
    assert server.sha256() == before
    assert server.round == 1


def test_training_alone_begins_with_pairs():
    data, validation = specimens(24, missing=False), specimens(12, seed=1, missing=False)
    nets = [net_of() for _ in range(2)]
    plain = training_of(net=nets[0], data=data, max_epochs=2)
    paired = training_of(net=nets[1], data=data, max_epochs=2, **TWO_OF_THREE)
    histories = [train_alone(each, validation) for each in (plain, paired)]
    assert [len(h.losses) for h in histories] == [2, 2]
    assert histories[0].losses[0] != histories[1].losses[0]


@pytest.mark.parametrize("paradigm", ["isolated", "centralized"])
def test_paradigms_that_train_alone_run(tmp_path, paradigm):
    experiment = tiny(ROUNDS.format(1), "training.max_epochs=1", paradigm=paradigm)
    assert run(experiment, tmp_path).accuracy["overall"] > 0


@pytest.mark.parametrize("mode", ["client", "local-update"])
def test_where_the_unit_is_the_institution_privacy_holds(tmp_path, mode):
    summary = run(tiny(ROUNDS.format(2), f"privacy.mode={mode}", paradigm="fedfuse"), tmp_path)
    assert 0.9 < summary.privacy.epsilon <= 1.0


@pytest.mark.parametrize(
    ("paradigm", "settings", "remedy"),
    [
        ("fedfuse_nonprivate", (ROUNDS.format(3),), "leaves no supervised round"),
        ("fedfuse", (ROUNDS.format(1),), "one record moves the gradients of all"),
        ("federated_dp", (ROUNDS.format(1),), "one record moves the gradients of all"),
        ("fedfuse_nonprivate", (ROUNDS.format(1), "model.fusion=early"), "no embedding"),
        (
            "fedfuse_nonprivate",
            (ROUNDS.format(1), "model.fusion=intermediate", "model.fusion_depth=1"),
            "no embedding",
        ),
        ("fedfuse_nonprivate", (ROUNDS.format(1), "strategy.kind=scaffold"), "control variates"),
        ("fedfuse_nonprivate", ("training.contrastive={rounds: 1, temperature: 0}",), "greater"),
    ],
)
def test_what_contrastive_rounds_do_not_go_with_is_refused(paradigm, settings, remedy):
    with pytest.raises(InputError, match=remedy) as caught:
        load("tiny", settings, paradigm=paradigm)
    assert caught.value.field.startswith("training.contrastive")


def test_a_federation_without_any_pair_is_refused():
    alone = ", ".join(
        f"{{name: {m}, domain: {d}, modalities: [{m}]}}"
        for d, ms in (("medical", ("ct", "mri")), ("materials", ("spectroscopy",)))
        for m in ms
    )
    split = "{name: em, domain: materials, modalities: [electron_microscopy]}"
    experiment = tiny(f"institutions=[{alone}, {split}]", ROUNDS.format(1))
    with pytest.raises(InputError, match="no participant owns two"):
        plan_of(experiment)
    pooled = experiment.model_copy(update={"paradigm": "centralized"})
    assert [p.name for p in plan_of(pooled).participants] == ["medical", "materials"]
