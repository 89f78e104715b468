"""The loss under missing modalities, batches, schedules, and what is counted as right."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from fedfuse_ray.config import TrainingConfig
from fedfuse_ray.federation.institution import training as local
from fedfuse_ray.federation.institution.tensors import TensorData
from fedfuse_ray.federation.institution.training import (
    batches,
    drop_modalities,
    learning_rate,
    predict,
)
from fedfuse_ray.models.initial import initial_blocks
from fedfuse_ray.models.net import CrossModalNet
from tests.support.federations import spec_of
from tests.support.local_setup import (
    FUSIONS,
    MODALITIES,
    SGD,
    loss_of,
    net_of,
    run,
    specimens,
    training_of,
)

# Modality dropout.


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("slots", [1, 2, 4])
def test_dropout_never_hides_all_and_never_shows_what_is_absent(rate, slots):
    generator = np.random.default_rng(0)
    present = torch.from_numpy(generator.random((500, slots)) < 0.6)
    present[:, 0] |= ~present.any(dim=1)
    before = present.clone()
    shown = drop_modalities(present, rate, generator)
    assert shown.any(dim=1).all()
    assert not (shown & ~present).any()
    assert torch.equal(present, before)
    if rate == 0 or slots == 1:
        assert torch.equal(shown, present)


def test_dropout_hides_at_its_rate_and_the_last_one_is_chosen_fairly():
    present = torch.ones(20_000, 2, dtype=torch.bool)
    shown = drop_modalities(present, 0.3, np.random.default_rng(1))
    both = shown.all(dim=1).double().mean()
    assert both == pytest.approx(0.7**2, abs=0.015)
    first = (shown[:, 0] & ~shown[:, 1]).double().mean()
    assert first == pytest.approx((1 - 0.7**2) / 2, abs=0.015)


def test_dropout_repeats_with_its_stream():
    present = torch.ones(50, 3, dtype=torch.bool)
    first, again = (drop_modalities(present, 0.5, np.random.default_rng(2)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, drop_modalities(present, 0.5, np.random.default_rng(3)))


# Batches and schedules.


@pytest.mark.parametrize(("count", "size"), [(10, 4), (8, 4), (3, 4), (1, 1)])
def test_batches_are_a_shuffled_partition(count, size):
    got = list(batches(count, size, np.random.default_rng(0)))
    assert sorted(torch.cat(got).tolist()) == list(range(count))
    assert [len(rows) for rows in got[:-1]] == [size] * (len(got) - 1)
    other = list(batches(count, size, np.random.default_rng(1)))
    assert count < 4 or torch.cat(got).tolist() != torch.cat(other).tolist()


def test_schedules():
    constant = TrainingConfig(rounds=4, learning_rate=0.2)
    assert {learning_rate(constant, epoch, 8) for epoch in range(8)} == {0.2}
    step = TrainingConfig(
        rounds=4, learning_rate=0.2, schedule="step", decay_every=3, decay_factor=0.1
    )
    got = [learning_rate(step, epoch, 8) for epoch in range(8)]
    assert got == pytest.approx([0.2] * 3 + [0.02] * 3 + [0.002] * 2)
    cosine = TrainingConfig(rounds=4, learning_rate=0.2, schedule="cosine")
    got = [learning_rate(cosine, epoch, 8) for epoch in range(9)]
    assert got == pytest.approx([0.1 * (1 + math.cos(math.pi * epoch / 8)) for epoch in range(9)])
    assert got[0] == 0.2
    assert got[8] == pytest.approx(0)


def test_the_schedule_goes_on_over_rounds():
    """With the rate at zero from the second round on, only the first round moves weights."""
    settings = {**SGD, "schedule": "step", "decay_every": 2, "decay_factor": 1e-30}
    moved = run(round=1, local_epochs=2, **settings)
    still = run(round=2, local_epochs=2, **settings)
    assert max(np.abs(v).max() for v in moved.update.weights.values()) > 1e-4
    assert max(np.abs(v).max() for v in still.update.weights.values()) < 1e-20


# The loss.


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_loss_is_the_fused_one_plus_the_mean_of_the_single_ones(fusion):
    net, data = net_of(fusion), specimens(6)
    shown = drop_modalities(data.present, 0.5, np.random.default_rng(0))
    got = loss_of(net, data, shown)
    weight = net.spec.config.auxiliary_weight
    for i in range(len(data)):
        embedded = net.embed(data.batch(slice(i, i + 1)))

        def entropy(mask, embedded=embedded, i=i):
            logits, _ = net.classify(embedded, mask[None])
            return float(functional.cross_entropy(logits, data.labels[i : i + 1]).detach())

        singles = [
            entropy(torch.eye(2, dtype=torch.bool)[m]) for m in range(2) if data.present[i, m]
        ]
        wanted = float(np.mean(singles))
        if fusion != "none":
            wanted = entropy(shown[i]) + weight * wanted
        assert float(got[i].detach()) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_an_absent_image_changes_neither_loss_nor_gradient(fusion):
    net, data = net_of(fusion), specimens()
    noisy = {
        m: torch.where(data.present[:, [i], None, None], x, torch.full_like(x, 0.9))
        for i, (m, x) in enumerate(data.inputs.items())
    }
    other = TensorData(MODALITIES, noisy, data.present, data.labels, data.device)
    assert any(not torch.equal(noisy[m], data.inputs[m]) for m in MODALITIES)
    results = []
    for each in (data, other):
        net.gradient.zero_()
        loss = loss_of(net, each)
        loss.mean().backward()
        results.append((loss.detach(), net.gradient.clone()))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_specimens_loss_does_not_depend_on_its_batch(fusion):
    net, data = net_of(fusion), specimens(9)
    whole = loss_of(net, data).detach()
    for i in range(9):
        alone = loss_of(net, data, rows=slice(i, i + 1)).detach()
        torch.testing.assert_close(alone, whole[i : i + 1], rtol=1e-4, atol=1e-5)


def test_a_gradient_is_the_mean_over_the_batch_and_starts_from_zero():
    training = training_of(dropout=0.0)
    rows = torch.tensor([1, 4, 7])
    generator = np.random.default_rng(0)
    loss = training.gradient(rows, generator)
    first = training.net.gradient.clone()
    assert training.gradient(rows, generator) == loss
    assert torch.equal(training.net.gradient, first)
    singles = []
    for row in rows:
        training.gradient(row[None], generator)
        singles.append(training.net.gradient.clone())
    torch.testing.assert_close(first, torch.stack(singles).mean(dim=0), rtol=1e-3, atol=1e-5)


# Scoring.


@pytest.mark.parametrize("fusion", ["attention", "late", "early"])
def test_predictions_count_every_specimen_that_has_something_to_see(fusion, monkeypatch):
    net, data = net_of(fusion), specimens(31)
    views = [("ct",), ("mri",), ("ct", "mri")]
    got = predict(net, data, views)
    for view in views:
        columns = [MODALITIES.index(m) for m in view]
        seen = data.present[:, columns].any(dim=1)
        truth = torch.bincount(data.labels[seen], minlength=3)
        assert got[view].confusion.sum(axis=1).tolist() == truth.tolist()
        assert got[view].attention[-1] == int(seen.sum())
        np.testing.assert_allclose(got[view].attention[:-1].sum(), int(seen.sum()), rtol=1e-4)
        hidden = [i for i, m in enumerate(MODALITIES) if m not in view]
        np.testing.assert_allclose(got[view].attention[hidden], 0, atol=1e-6)
    monkeypatch.setattr(local, "_CHUNK", 7)
    for view, again in predict(net, data, views).items():
        np.testing.assert_array_equal(again.confusion, got[view].confusion)


def test_predictions_are_the_most_likely_class():
    net, data = net_of(), specimens(12, missing=False)
    with torch.no_grad():
        logits, _ = net.classify(net.embed(data.batch(slice(None))), data.present)
    wanted = np.zeros((3, 3), np.int64)
    for label, guess in zip(data.labels.tolist(), logits.argmax(dim=1).tolist(), strict=True):
        wanted[label, guess] += 1
    got = predict(net, data, [MODALITIES])[MODALITIES].confusion
    np.testing.assert_array_equal(got, wanted)


def test_data_may_have_modalities_that_the_network_lacks():
    spec = spec_of()
    narrow, wide = CrossModalNet(spec, "medical", ("mri",)), specimens(10, missing=False)
    narrow.set_blocks(initial_blocks(spec))
    only = TensorData(
        ("mri",), {"mri": wide.inputs["mri"]}, wide.present[:, 1:], wide.labels, wide.device
    )
    view = ("mri",)
    np.testing.assert_array_equal(
        predict(narrow, wide, [view])[view].confusion, predict(narrow, only, [view])[view].confusion
    )
