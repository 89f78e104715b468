from __future__ import annotations

import numpy as np
import pytest
import torch

from fedfuse_ray.audit.attacks.features import encoder_features, feature_leaks, invert_features
from fedfuse_ray.audit.attacks.image_attack import attack_images, victim
from fedfuse_ray.audit.attacks.inversion import record_gradients
from fedfuse_ray.audit.attacks.observations import CLIPPED, RAW, SHARE, SUM, Bench, trainable
from fedfuse_ray.audit.attacks.similarity import identified, matched, psnr, ssim
from fedfuse_ray.models.initial import initial_blocks
from tests.support.federations import dataset_of, plan_of, tiny


def bench_of(*settings, paradigm="fedfuse", images=False):
    experiment = tiny(*settings, paradigm=paradigm)
    plan = plan_of(experiment)
    plan = trainable(plan) if images else plan
    return Bench(plan, dataset_of(experiment), initial_blocks(plan.spec), 0, 4)


def test_psnr_and_ssim_of_known_pairs():
    image = np.random.default_rng(0).random((1, 16, 16))
    assert psnr(image, image) == 100.0
    assert psnr(np.zeros((1, 4, 4)), np.full((1, 4, 4), 0.1)) == pytest.approx(20.0)
    assert ssim(image, image) == pytest.approx(1.0)
    assert ssim(image, 1 - image) < 0
    assert abs(ssim(image, np.random.default_rng(1).random((1, 16, 16)))) < 0.2
    signal = image.reshape(1, -1)
    assert ssim(signal, signal) == pytest.approx(1.0)


def test_a_batch_is_matched_in_any_order_and_told_from_decoys():
    images = list(np.random.default_rng(0).random((3, 1, 4, 4)))
    assert matched(images, [images[2], images[0], images[1]]) == (1, 2, 0)
    decoys = np.stack(images[1:])
    assert identified(images[0] + 0.01, images[0], decoys)
    assert not identified(images[1], images[0], decoys)


def test_the_attackers_gradient_is_the_one_that_institutions_take():
    bench = bench_of(images=True)
    training = bench.training(bench.plan.by_name["med-01"])
    rows = torch.tensor([0])
    images = training.data.batch(rows)
    own = record_gradients(
        training.net, images, training.data.present[rows], training.data.labels[rows]
    )[0]
    seen = bench.observe(training, [0], RAW)
    assert torch.allclose(own, seen, atol=1e-5)


HEADS = (
    "model.embedding_dim=null",
    "model.encoder={kind: cnn, width: 4, trainable: false, projection: 12}",
)


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("model.encoder.trainable=true",),
        (*HEADS, "model.fusion=product"),
        (*HEADS, "model.fusion=late"),
    ],
)
def test_features_are_read_off_a_bare_gradient_exactly(settings):
    bench = bench_of(*settings)
    training = bench.training(bench.plan.by_name["mat-01"])
    features = encoder_features(training)
    row = int(training.data.present.all(dim=1).nonzero()[0])
    for view in (RAW, CLIPPED):
        estimates = invert_features(training.net, bench.observe(training, [row], view))
        for modality, values in features.items():
            assert np.allclose(estimates[modality], values[row], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("settings", [("early",), ("intermediate", "model.fusion_depth=1")])
def test_where_no_modality_has_an_encoder_no_feature_leak_is_told(settings):
    fusion, *depth = settings
    bench = bench_of(f"model.fusion={fusion}", *depth, "model.encoder.trainable=true")
    assert feature_leaks(bench, "med-01", 2) == []


def test_noise_ends_the_leak_of_features():
    leaks = {leak.view: leak for leak in feature_leaks(bench_of(), "med-01", 12)}
    assert leaks[CLIPPED].identified == 1.0
    assert leaks[CLIPPED].relative_error < 1e-3
    for view in (SHARE, SUM):
        assert leaks[view].identified < 0.5
        assert leaks[view].relative_error > 0.5


def test_the_views_carry_the_noise_that_they_should():
    bench = bench_of("privacy.tolerated_dropouts=0")
    terms = bench.plan.privacy
    training = bench.training(bench.plan.by_name["med-01"])
    clipped = bench.observe(training, [0], CLIPPED)
    assert float(clipped.norm()) <= terms.clip_norms["joint"]
    start, stop = training.net.offsets["encoder/ct"]
    full = terms.sigma("med-01", 1) * terms.clip_norms["joint"]
    share = (bench.observe(training, [0], SHARE) - clipped)[start:stop].std()
    assert float(share) == pytest.approx(
        full / len(bench.plan.owners["encoder/ct"]) ** 0.5, rel=0.1
    )
    total = bench.observe(training, [0], SUM)[start:stop].std()
    assert float(total) == pytest.approx(full, rel=0.1)


def test_images_come_back_from_a_bare_gradient_and_not_from_a_noisy_one():
    attack = attack_images(bench_of(images=True), records=1, steps=200, batch_steps=5)
    single = {leak.view: leak for leak in attack.leaks if leak.batch == 1}
    assert attack.institution == "med-01"
    assert single[RAW].psnr > 15
    assert single[RAW].ssim > 0.6
    assert single[RAW].identified == 1.0
    assert single[SUM].psnr < 11
    assert single[SUM].ssim < 0.3
    assert [leak.view for leak in attack.leaks if leak.batch > 1] == [RAW, SUM]


def test_without_privacy_only_bare_and_summed_gradients_exist():
    bench = bench_of(paradigm="fedfuse_nonprivate", images=True)
    assert bench.views == (RAW, SUM)
    training = bench.training(bench.plan.by_name[victim(bench.plan)])
    alone = bench.observe(training, [0], RAW)
    assert not torch.equal(bench.observe(training, [0], SUM), alone)


def test_training_at_each_institution_is_attacked_with_its_own_noise():
    bench = bench_of(paradigm="federated_dp")
    training = bench.training(bench.plan.by_name["med-01"])
    start, stop = training.net.offsets["encoder/ct"]
    terms = bench.plan.privacy
    clipped = bench.observe(training, [0], CLIPPED)
    noise = (bench.observe(training, [0], SHARE) - clipped)[start:stop]
    full = terms.sigma("med-01", 1) * terms.clip_norms["joint"]
    assert float(noise.std()) == pytest.approx(full, rel=0.1)
