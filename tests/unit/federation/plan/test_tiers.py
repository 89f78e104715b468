"""Institutions of weaker hardware: encoders of their own tier, and fewer local steps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from fedfuse_ray.config.settings.model import EncoderConfig
from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.checkpoints import checkpoint as checkpoints
from fedfuse_ray.federation.checkpoints.checkpoint import Checkpoint
from fedfuse_ray.federation.institution.institution import Institution, NetCache
from fedfuse_ray.federation.institution.tensors import BackboneCache
from fedfuse_ray.federation.plan import public_encoders
from fedfuse_ray.federation.plan.transfer import first_weights
from fedfuse_ray.federation.rounds.serial import SerialExecutor
from fedfuse_ray.federation.server.server import ParameterServer
from fedfuse_ray.federation.strategies import LocalRule
from fedfuse_ray.models.initial import block_sizes, frozen_backbone, initial_blocks
from fedfuse_ray.models.net import CrossModalNet
from tests.support.federations import dataset_of, plan_of, spec_of, tiny
from tests.support.local_setup import SGD, training_of

EDGE = ("model.encoder.width=8", "model.tiers={edge: {width: 4}}")
MED_02 = (*EDGE, "institutions.med-02.hardware.tier=edge")
FOUR = (
    *EDGE,
    "institutions=["
    "{name: med-01, domain: medical, modalities: [ct, mri]},"
    "{name: med-02, domain: medical, modalities: [ct], hardware: {tier: edge}},"
    "{name: med-03, domain: medical, modalities: [ct], share: 2, hardware: {tier: edge}},"
    "{name: mat-01, domain: materials, modalities: [electron_microscopy, spectroscopy]}]",
)
DISTRIBUTED = ("privacy.mode=record-distributed", "privacy.target_epsilon=8")


def started(*settings, paradigm="fedfuse_nonprivate"):
    experiment = tiny(*settings, paradigm=paradigm)
    executor = SerialExecutor()
    executor.start(plan_of(experiment), dataset_of(experiment).folder)
    executor.load(None)
    return executor


def institutions_of(plan):
    nets, data = NetCache(plan), dataset_of(plan.experiment)
    return {p.name: Institution(plan, p, data, nets) for p in plan.participants}


def first_round(plan):
    """Return what each institution's first round of local training gives."""
    broadcast = ParameterServer(plan, Checkpoint(0, first_weights(plan.spec))).broadcast()
    return {
        name: i.train(1, i.receive(broadcast, behind=False), {})
        for name, i in institutions_of(plan).items()
    }


def edge_spec(**encoder):
    spec = spec_of(**encoder)
    config = spec.config.model_copy(
        update={"tiers": {"edge": EncoderConfig(**{"width": 8, **encoder})}}
    )
    return dataclasses.replace(spec, config=config, tiers={"edge": ("ct",)})


# Blocks and their owners.


def test_a_tiers_institutions_own_encoders_of_their_own():
    plan = plan_of(tiny(*FOUR))
    assert plan.owners["encoder/ct"] == ("med-01",)
    assert plan.owners["encoder/ct@edge"] == ("med-02", "med-03")
    assert plan.owners["fusion"] == ("med-01", "med-02", "med-03", "mat-01")
    assert plan.owners["head/medical"] == ("med-01", "med-02", "med-03")
    assert set(initial_blocks(plan.spec)) == set(plan.owners)
    fractions = plan.fractions["encoder/ct@edge"]
    assert fractions["med-03"] == pytest.approx(2 * fractions["med-02"], rel=0.1)
    assert sum(fractions.values()) == pytest.approx(1)


def test_an_encoders_size_is_its_tiers_and_other_blocks_stay():
    sizes = block_sizes(plan_of(tiny(*MED_02)).spec)
    narrow = block_sizes(plan_of(tiny("model.encoder.width=4")).spec)
    assert sizes["encoder/ct@edge"] == narrow["encoder/ct"] < sizes["encoder/ct"]
    for name in ("fusion", "head/medical"):
        assert sizes[name] == narrow[name]


def test_a_tier_that_nobody_is_of_adds_no_block():
    assert plan_of(tiny(*EDGE)).owners.keys() == plan_of(tiny()).owners.keys()
    with_tier, without = (initial_blocks(plan_of(tiny(*s)).spec) for s in (EDGE, EDGE[:1]))
    assert with_tier.keys() == without.keys()
    for name, vector in without.items():
        np.testing.assert_array_equal(with_tier[name], vector)


def test_without_fusion_a_tier_shares_the_heads():
    plan = plan_of(tiny(*MED_02, paradigm="federated"))
    assert plan.blocks_of(plan.by_name["med-02"]) == ("encoder/ct@edge", "head/medical/ct")
    assert plan.owners["head/medical/ct"] == ("med-01", "med-02")


def test_what_an_institution_has_comes_with_its_participant():
    settings = ("institutions.med-02.hardware={speed: 0.25, local_steps: 3, tier: edge}", *EDGE)
    plan = plan_of(tiny(*settings))
    edge, default = plan.by_name["med-02"], plan.by_name["med-01"]
    assert (edge.speed, edge.local_steps, edge.tier) == (0.25, 3, "edge")
    assert (default.speed, default.local_steps, default.tier) == (1.0, None, "")


def test_a_pool_has_the_default_encoders():
    settings = (
        *MED_02,
        "institutions.med-02.share=9",
        "institutions.med-02.hardware.local_steps=1",
    )
    plan = plan_of(tiny(*settings, paradigm="centralized"))
    assert {(p.tier, p.local_steps) for p in plan.participants} == {("", None)}
    assert plan.owners.keys() == plan_of(tiny(paradigm="centralized")).owners.keys()


# Training and scoring.


def test_an_edge_encoder_is_averaged_over_edge_owners_alone():
    executor, plan = started(*FOUR), plan_of(tiny(*FOUR))
    before = executor.weights
    results = first_round(plan)
    updates = {name: result.update.weights for name, result in results.items()}
    assert "encoder/ct" not in updates["med-02"]
    assert "encoder/ct@edge" not in updates["med-01"]
    assert np.abs(updates["med-02"]["encoder/ct@edge"]).max() > 0
    fractions = plan.fractions
    executor.train(1)
    for name, owners in {
        "encoder/ct@edge": ("med-02", "med-03"),
        "encoder/ct": ("med-01",),
        "fusion": tuple(results),
    }.items():
        mean = sum(fractions[name][who] * updates[who][name] for who in owners)
        moved = executor.weights[name] - before[name]
        np.testing.assert_allclose(moved, mean, atol=1e-6)


def test_networks_are_kept_by_tier():
    plan, cpu = plan_of(tiny(*MED_02)), torch.device("cpu")
    nets = NetCache(plan)
    default, edge = (nets.get("medical", ("ct",), cpu, tier) for tier in ("", "edge"))
    assert nets.get("medical", ("ct",), cpu) is default
    assert (default.names[0], edge.names[0]) == ("encoder/ct", "encoder/ct@edge")


def test_test_specimens_see_default_encoders_and_validation_the_own(tmp_path):
    executor = started(*MED_02)
    executor.train(1)
    edge = institutions_of(plan_of(tiny(*MED_02)))["med-02"]
    executor.save(tmp_path)
    weights = checkpoints.read(checkpoints.path_of(tmp_path, 1)).model
    views = [("ct", "mri")]

    def counts(scrambled):
        generator = np.random.default_rng(3)
        noise = 3 * generator.standard_normal(weights[scrambled].size).astype(np.float32)
        scores = edge.evaluate(weights | {scrambled: noise}, views)
        return scores.attention[views[0]], edge._on_validation(weights | {scrambled: noise})

    as_is = edge.evaluate(weights, views).attention[views[0]]
    own = edge._on_validation(weights)
    tested, validated = counts("encoder/ct@edge")
    np.testing.assert_array_equal(tested, as_is)
    assert not np.array_equal(validated.confusion, own.confusion)
    tested, validated = counts("encoder/ct")
    assert not np.array_equal(tested, as_is)
    np.testing.assert_array_equal(validated.confusion, own.confusion)


@pytest.mark.parametrize("frozen", [False, True])
def test_alone_an_institution_trains_and_is_scored_with_its_own_tier(frozen):
    settings = [*EDGE, "institutions.med-01.hardware.tier=edge", "training.max_epochs=2"]
    settings += [f"model.tiers.edge.trainable={'false' if frozen else 'true'}"]
    executor = started(*settings, paradigm="isolated")  # nobody has the default encoder of mri
    (alone,) = executor.train_alone(["med-01"], {"medical": (("ct", "mri"),), "materials": ()})
    assert {"encoder/ct@edge", "encoder/mri@edge"} < alone.weights.keys()
    assert "encoder/ct" not in alone.weights
    assert (
        alone.scores.confusion[("ct", "mri")].sum()
        == plan_of(tiny(*settings, paradigm="isolated")).test["medical"]
    )


@pytest.mark.parametrize("frozen", [False, True])
def test_the_same_seed_gives_the_same_weights(frozen):
    settings = [*MED_02, "institutions.med-02.hardware.local_steps=2"]
    if frozen:
        settings += ["model.tiers.edge.trainable=false"]
    digests = []
    for extra in ([], [], ["model.tiers.edge.width=5"], ["seed=1"]):
        executor = started(*settings, *extra)
        for round in (1, 2):
            executor.train(round)
        digests.append(executor.sha256())
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_frozen_backbones_are_kept_by_modality_and_tier():
    spec = edge_spec(trainable=False)
    images = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    cache = BackboneCache(spec)
    default, edge = (cache.features("ct", images, torch.device("cpu"), t) for t in ("", "edge"))
    assert (default.shape, edge.shape) == ((3, 256), (3, 512))
    assert torch.equal(cache.features("ct", images, torch.device("cpu")), default)
    backbone = frozen_backbone(spec, "ct", "edge")
    assert torch.equal(edge, backbone(images).detach())


def test_a_tier_may_freeze_what_the_default_trains():
    spec = edge_spec()
    tiers = {"edge": EncoderConfig(width=8, trainable=False)}
    spec = dataclasses.replace(spec, config=spec.config.model_copy(update={"tiers": tiers}))
    assert spec.frozen("ct", "edge")
    assert not spec.frozen("ct")
    sizes = block_sizes(spec)
    assert sizes["encoder/ct@edge"] == (512 + 1) * spec.config.embedding_dim
    net = CrossModalNet(spec, "medical", ("ct",), "edge")
    net.set_blocks(initial_blocks(spec))
    assert net.embed({"ct": torch.zeros(2, 512)}).shape == (2, 1, 8)


def test_public_weights_are_made_for_every_tier_that_somebody_is_of(monkeypatch, tmp_path):
    monkeypatch.setenv("FEDFUSE_RAY_CACHE", str(tmp_path))
    monkeypatch.setattr(public_encoders, "_SPECIMENS", 64)
    monkeypatch.setattr(public_encoders, "_EPOCHS", 1)
    spec = edge_spec(weights="public", trainable=False)
    spec = dataclasses.replace(
        spec, domains={"medical": ("ct",)}, classes={"medical": 3}, shapes={"ct": (1, 16, 16)}
    )
    told = []
    public_encoders.ensure(dataclasses.replace(spec, tiers={}), told.append)
    assert len(told) == 1
    public_encoders.ensure(spec, told.append)
    assert len(told) == 2
    wide, narrow = (frozen_backbone(spec, "ct", tier) for tier in ("edge", ""))
    # Frozen with public weights: both end in the same factors, whatever their width.
    images = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert wide(images).shape == narrow(images).shape
    assert not torch.equal(wide(images), narrow(images))
    stranger = dataclasses.replace(
        spec, domains={"m": ("pet",)}, shapes={"pet": (1, 16, 16)}, tiers={"edge": ("pet",)}
    )
    encoder = EncoderConfig(width=4)
    config = spec.config.model_copy(update={"encoder": encoder})
    with pytest.raises(InputError, match=r"model\.tiers\.edge\.weights.*pet"):
        public_encoders.ensure(dataclasses.replace(stranger, config=config))


# Fewer steps.


def test_local_steps_end_a_round_early_and_change_nothing_before():
    free = training_of(local_epochs=2, batch_size=8).run_round(1, LocalRule(), {}, {})
    assert free.steps == 2 * 3

    def capped(most):
        training = dataclasses.replace(training_of(local_epochs=2, batch_size=8), local_steps=most)
        return training.run_round(1, LocalRule(), {}, {})

    assert [capped(most).steps for most in (1, 2, 4, 6, 99)] == [1, 2, 4, 6, 6]
    for name, update in capped(99).update.weights.items():
        np.testing.assert_array_equal(update, free.update.weights[name])
    # Three steps are the first of the two epochs.
    once = training_of(local_epochs=1, batch_size=8).run_round(1, LocalRule(), {}, {})
    for name, update in capped(3).update.weights.items():
        np.testing.assert_array_equal(update, once.update.weights[name])


def test_an_institutions_limit_reaches_its_training():
    executor = started("institutions.med-02.hardware.local_steps=1", "training.local_epochs=2")
    steps = {r.institution: r.steps for r in executor.train(1).records}
    assert steps["med-02"] == 1
    assert min(steps["med-01"], steps["mat-01"]) > 1


def test_fednova_gives_unequal_steps_equal_weight():
    """Tiny full-batch steps all point one way: divided by their number, updates are equal."""
    settings = {**SGD, "learning_rate": 1e-3, "local_epochs": 8, "batch_size": 20, "dropout": 0.0}

    def update(most, *, normalise):
        training = dataclasses.replace(training_of(**settings), local_steps=most)
        blocks = training.run_round(1, LocalRule(normalise=normalise), {}, {}).update.weights
        return np.concatenate(list(blocks.values())).astype(np.float64)

    def compare(first, second):
        lengths = np.linalg.norm(first), np.linalg.norm(second)
        return first @ second / (lengths[0] * lengths[1]), lengths[1] / lengths[0]

    cosine, ratio = compare(update(1, normalise=True), update(8, normalise=True))
    assert cosine > 0.999
    assert ratio == pytest.approx(1, rel=0.03)
    cosine, ratio = compare(update(1, normalise=False), update(8, normalise=False))
    assert cosine > 0.999
    assert ratio == pytest.approx(8, rel=0.03)


def test_under_fednova_the_server_scales_by_the_mean_number_of_steps():
    settings = ("strategy.kind=fednova", "strategy.weighting=uniform", "training.local_epochs=2")
    settings = (*settings, "institutions.med-02.hardware.local_steps=1")
    executor = started(*settings)
    before = executor.weights["head/medical"]
    results = first_round(plan_of(tiny(*settings)))
    free, capped = results["med-01"], results["med-02"]
    assert capped.steps == 1 < free.steps
    executor.train(1)
    moved = executor.weights["head/medical"] - before
    mean = sum(r.update.weights["head/medical"] for r in (free, capped)) / 2
    mean_steps = (free.steps + capped.steps) / 2
    np.testing.assert_allclose(moved, mean_steps * mean, rtol=1e-4, atol=1e-6)


# Under privacy.


def test_a_modalitys_clipping_group_holds_its_encoders_of_all_tiers():
    groups = "privacy.groups={ct: {clip_norm: 0.3}, rest: {clip_norm: 0.4}}"
    terms = plan_of(tiny(*MED_02, *DISTRIBUTED, groups, paradigm="fedfuse")).privacy
    assigned = terms.groups(tuple(terms.owners))
    assert assigned["encoder/ct"] == assigned["encoder/ct@edge"] == "ct"
    assert assigned["encoder/mri"] == assigned["fusion"] == "rest"


def test_a_tiers_encoder_carries_the_noise_of_its_own_owners():
    terms = plan_of(tiny(*FOUR, *DISTRIBUTED, paradigm="fedfuse")).privacy
    shares = {name: terms.shares(name) for name in ("encoder/ct", "encoder/ct@edge", "fusion")}
    assert shares == {"encoder/ct": 1, "encoder/ct@edge": 1, "fusion": 3}


@pytest.mark.parametrize("mode", ["record-distributed", "record-local", "client", "local-update"])
def test_every_private_mode_trains_a_tier(mode):
    settings = (*FOUR, f"privacy.mode={mode}", "privacy.target_epsilon=8", "training.rounds=2")
    executor = started(*settings, paradigm="fedfuse")
    before = executor.weights
    executor.train(1)
    after = executor.weights
    assert after.keys() == before.keys()
    for name in ("encoder/ct", "encoder/ct@edge", "fusion"):
        assert np.isfinite(after[name]).all()
        assert not np.array_equal(after[name], before[name])


# Wrong input.


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            (*EDGE, "institutions.med-02.hardware.tier=edgy"),
            r"med-02\.hardware\.tier: 'edgy'.*not one of model\.tiers.*edge",
        ),
        (("institutions.med-02.hardware.tier=edge",), r"'edge'.*none is defined"),
        ((*MED_02, "model.fusion=early"), r"med-02\.hardware\.tier: 'edge'.*fusion=early"),
        (
            (*MED_02, "model.fusion=intermediate", "model.fusion_depth=1"),
            r"med-02\.hardware\.tier: 'edge'.*fusion=intermediate",
        ),
        (("model.tiers={a@b: {width: 4}}",), r"model\.tiers"),
        (("model.tiers={edge: {width: 1}}",), r"model\.tiers\.edge\.width"),
        (("model.tiers={edge: {kind: vgg16}}",), r"model\.tiers\.edge\.kind: 'vgg16'"),
        (("institutions.med-02.hardware.local_steps=0",), r"local_steps"),
        (("institutions.med-02.hardware.speed=0",), r"speed"),
        (("institutions.med-02.hardware.speed=.inf",), r"speed"),
    ],
)
def test_wrong_hardware_is_refused(settings, said):
    with pytest.raises(InputError, match=said):
        tiny(*settings)


@pytest.mark.parametrize("mode", ["record-distributed", "record-local"])
def test_a_step_limit_that_accounting_overrides_is_refused(mode):
    limit = "institutions.med-02.hardware.local_steps=3"
    settings = (limit, f"privacy.mode={mode}", "privacy.target_epsilon=8")
    with pytest.raises(InputError, match=rf"med-02\.hardware\.local_steps: '3'.*{mode}"):
        tiny(*settings, paradigm="fedfuse")
    assert tiny(limit, "privacy.mode=client", *settings[2:], paradigm="fedfuse")


@pytest.mark.parametrize("paradigm", ["fedfuse_nonprivate", "federated"])
def test_a_modality_without_default_encoder_is_refused(paradigm):
    settings = (*EDGE, "institutions.med-01.hardware.tier=edge")
    with pytest.raises(InputError, match=r"med-01\.hardware\.tier: 'edge'.*default.*'mri'.*empty"):
        plan_of(tiny(*settings, paradigm=paradigm))
    # Models that train apart have no global model.
    for alone in ("isolated", "centralized"):
        assert plan_of(tiny(*settings, paradigm=alone))
