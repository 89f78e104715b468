"""Local training: the loss under missing modalities, the schedule, each strategy's rule."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from federations import spec_of
from torch.nn import functional

from fedfuse_ray.config import TrainingConfig
from fedfuse_ray.federation import local
from fedfuse_ray.federation.alone import train_alone
from fedfuse_ray.federation.local import (
    LocalTraining,
    batches,
    drop_modalities,
    learning_rate,
    predict,
    training_loss,
)
from fedfuse_ray.federation.strategies import CONTROL, LocalRule
from fedfuse_ray.federation.tensors import TensorData
from fedfuse_ray.models import CrossModalNet, initial_blocks

MODALITIES = ("ct", "mri")
SGD = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.05}
FUSIONS = ["attention", "mean", "concat", "early", "late", "none"]


def net_of(fusion="attention", seed=0):
    spec = spec_of(fusion, seed=seed)
    net = CrossModalNet(spec, "medical", MODALITIES)
    net.set_blocks(initial_blocks(spec))
    return net


def specimens(count=20, seed=0, missing=True):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (count,), generator=generator)
    present = torch.ones(count, 2, dtype=torch.bool)
    if missing:
        present[::3, 0] = False
        present[1::3, 1] = False
    images = {
        m: (torch.rand(count, 1, 16, 16, generator=generator) * (1 + labels)[:, None, None, None])
        .div(3)
        .half()
        for m in MODALITIES
    }
    return TensorData(MODALITIES, images, present, labels, torch.device("cpu"))


def training_of(net=None, data=None, dropout=0.3, batch_size=8, **settings):
    net = net or net_of()
    return LocalTraining(
        net=net,
        data=data or specimens(),
        training=TrainingConfig(**{"rounds": 4, **settings}),
        model=net.spec.config.model_copy(update={"modality_dropout": dropout}),
        batch_size=batch_size,
        seed=0,
        name="med-01",
    )


def run(rule=None, broadcast=None, state=None, round=1, **settings):
    training = training_of(**settings)
    return training.run_round(round, rule or LocalRule(), broadcast or {}, state or {})


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
    assert max(np.abs(v).max() for v in moved.update.values()) > 1e-4
    assert max(np.abs(v).max() for v in still.update.values()) < 1e-20


# The loss.


def loss_of(net, data, shown=None, rows=slice(None)):
    present = data.present[rows]
    shown = present if shown is None else shown
    return training_loss(net, data.batch(rows), present, shown, data.labels[rows])


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


# A round, and what strategies change about it.


def test_an_update_is_new_minus_old_weights():
    training = training_of(local_epochs=2, batch_size=8)
    before = training.net.get_blocks()
    result = training.run_round(1, LocalRule(), {}, {})
    after = training.net.get_blocks()
    assert result.steps == 2 * 3
    assert result.update.keys() == before.keys()
    assert result.state == {}
    for name, update in result.update.items():
        np.testing.assert_allclose(update, after[name] - before[name], atol=1e-7)
        assert update.dtype == np.float32
        assert np.abs(update).max() > 0


def test_a_round_repeats_and_another_round_differs():
    first, again, other = run(round=1), run(round=1), run(round=2)
    for name in first.update:
        np.testing.assert_array_equal(first.update[name], again.update[name])
    assert first.loss == again.loss
    assert any(not np.array_equal(first.update[n], other.update[n]) for n in first.update)


def test_training_lowers_the_loss():
    training = training_of(local_epochs=20, learning_rate=0.01, batch_size=4)
    before = float(loss_of(training.net, training.data).mean().detach())
    training.run_round(1, LocalRule(), {}, {})
    assert float(loss_of(training.net, training.data).mean().detach()) < 0.7 * before


def test_fedprox_pulls_towards_the_weights_of_the_start():
    """Steps by hand: w - rate * (gradient + mu * (w - start))."""
    mu, rate = 0.7, SGD["learning_rate"]
    training = training_of(local_epochs=2, dropout=0.0, **SGD)
    result = training.run_round(1, LocalRule(proximal_mu=mu), {}, {})
    hand = training_of(local_epochs=2, dropout=0.0, **SGD)
    start = hand.net.flat.clone()
    generator = local.rng.generator(0, "local training", "med-01", 1)
    for _ in range(2):
        for rows in batches(len(hand.data), hand.batch_size, generator):
            hand.gradient(rows, generator)
            hand.net.flat -= rate * (hand.net.gradient + mu * (hand.net.flat - start))
    for name, wanted in hand.net.split(hand.net.flat - start).items():
        np.testing.assert_allclose(result.update[name], wanted, rtol=1e-3, atol=1e-6)
    free = run(local_epochs=2, dropout=0.0, **SGD)
    assert any(not np.allclose(free.update[n], result.update[n], atol=1e-6) for n in free.update)


def test_a_strong_pull_keeps_the_weights_closer():
    def length(mu):
        settings = {**SGD, "local_epochs": 10, "dropout": 0.0}
        update = run(LocalRule(proximal_mu=mu), **settings).update
        return sum(float(np.square(v).sum()) for v in update.values())

    assert length(10.0) < 0.5 * length(0.0)


def test_fednova_divides_by_the_steps():
    plain, normalised = run(local_epochs=2), run(LocalRule(normalise=True), local_epochs=2)
    assert normalised.steps == plain.steps == 6
    for name, update in plain.update.items():
        np.testing.assert_allclose(6 * normalised.update[name], update, rtol=1e-4, atol=1e-7)


def controls(net, seed):
    generator = np.random.default_rng(seed)
    return {
        CONTROL + name: (0.1 * generator.standard_normal(stop - start)).astype(np.float32)
        for name, (start, stop) in net.offsets.items()
    }


def test_scaffold_keeps_option_two_of_algorithm_1():
    """c_i+ = c_i - c + (x - y) / (K * rate), for plain SGD; the change of c_i is sent."""
    rate = SGD["learning_rate"]
    training = training_of(local_epochs=3, dropout=0.0, **SGD)
    server, own = controls(training.net, 1), controls(training.net, 2)
    result = training.run_round(1, LocalRule(controls=True), server, own)
    for name in training.net.names:
        key = CONTROL + name
        wanted = own[key] - server[key] - result.update[name] / (result.steps * rate)
        np.testing.assert_allclose(result.state[key], wanted, rtol=1e-2, atol=2e-4)
        np.testing.assert_allclose(result.update[key], result.state[key] - own[key], atol=1e-6)
    assert result.update.keys() == {*training.net.names, *server}


def test_scaffold_corrects_every_step():
    """One step by hand: w - rate * (gradient - c_i + c)."""
    training = training_of(data=specimens(6), batch_size=6, dropout=0.0, **SGD)
    server, own = controls(training.net, 1), controls(training.net, 2)
    training.gradient(torch.arange(6), np.random.default_rng(0))
    gradient = training.net.split(training.net.gradient)
    result = training.run_round(1, LocalRule(controls=True), server, own)
    assert result.steps == 1
    for name in training.net.names:
        key = CONTROL + name
        wanted = -SGD["learning_rate"] * (gradient[name] - own[key] + server[key])
        np.testing.assert_allclose(result.update[name], wanted, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(result.state[key], gradient[name], rtol=1e-3, atol=1e-6)


def test_scaffolds_first_round_has_no_control_of_its_own():
    training = training_of(dropout=0.0, **SGD)
    zero = {key: np.zeros_like(v) for key, v in controls(training.net, 1).items()}
    result = training.run_round(1, LocalRule(controls=True), zero, {})
    plain = run(dropout=0.0, **SGD)
    for name in training.net.names:
        np.testing.assert_allclose(result.update[name], plain.update[name], atol=1e-7)
        np.testing.assert_array_equal(result.update[CONTROL + name], result.state[CONTROL + name])


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


# Training without a federation.


def test_training_alone_keeps_the_weights_that_validated_best():
    training = training_of(max_epochs=12, patience=2, learning_rate=0.01, batch_size=4)
    validation = specimens(15, seed=1)
    history = train_alone(training, validation)
    assert len(history.losses) == len(history.validation) <= 12
    assert history.validation[history.best_epoch - 1] == max(history.validation)
    training.net.set_blocks(history.weights)
    counts = predict(training.net, validation, [MODALITIES])[MODALITIES].confusion
    assert np.trace(counts) / counts.sum() == pytest.approx(max(history.validation))


def test_training_alone_stops_when_nothing_improves():
    training = training_of(max_epochs=100, patience=2, learning_rate=1e-12)
    history = train_alone(training, specimens(15, seed=1))
    assert len(history.losses) < 30


def test_training_alone_without_validation_goes_by_the_training_loss():
    training = training_of(max_epochs=6, patience=6, learning_rate=0.01, batch_size=4)
    history = train_alone(training, specimens(0, missing=False))
    assert history.losses[history.best_epoch - 1] == min(history.losses)
    assert history.best_epoch > 1
