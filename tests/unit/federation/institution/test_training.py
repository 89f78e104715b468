"""A round of local training under each strategy's rule, and training without a federation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedfuse_ray.federation.institution import training as local
from fedfuse_ray.federation.institution.alone import train_alone
from fedfuse_ray.federation.institution.training import batches, predict
from fedfuse_ray.federation.strategies import LocalRule
from tests.support.local_setup import MODALITIES, SGD, loss_of, run, specimens, training_of

# A round, and what strategies change about it.


def test_an_update_is_new_minus_old_weights():
    training = training_of(local_epochs=2, batch_size=8)
    before = training.net.get_blocks()
    result = training.run_round(1, LocalRule(), {}, {})
    after = training.net.get_blocks()
    assert result.steps == 2 * 3
    assert result.update.weights.keys() == before.keys()
    assert (result.controls, result.update.controls) == ({}, {})
    for name, update in result.update.weights.items():
        np.testing.assert_allclose(update, after[name] - before[name], atol=1e-7)
        assert update.dtype == np.float32
        assert np.abs(update).max() > 0


def test_a_round_repeats_and_another_round_differs():
    first, again, other = run(round=1), run(round=1), run(round=2)
    for name in first.update.weights:
        np.testing.assert_array_equal(first.update.weights[name], again.update.weights[name])
    assert first.loss == again.loss
    assert any(
        not np.array_equal(first.update.weights[n], other.update.weights[n])
        for n in first.update.weights
    )


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
        np.testing.assert_allclose(result.update.weights[name], wanted, rtol=1e-3, atol=1e-6)
    free = run(local_epochs=2, dropout=0.0, **SGD)
    assert any(
        not np.allclose(free.update.weights[n], result.update.weights[n], atol=1e-6)
        for n in free.update.weights
    )


def test_a_strong_pull_keeps_the_weights_closer():
    def length(mu):
        settings = {**SGD, "local_epochs": 10, "dropout": 0.0}
        update = run(LocalRule(proximal_mu=mu), **settings).update
        return sum(float(np.square(v).sum()) for v in update.weights.values())

    assert length(10.0) < 0.5 * length(0.0)


def test_fednova_divides_by_the_steps():
    plain, normalised = run(local_epochs=2), run(LocalRule(normalise=True), local_epochs=2)
    assert normalised.steps == plain.steps == 6
    for name, update in plain.update.weights.items():
        np.testing.assert_allclose(
            6 * normalised.update.weights[name], update, rtol=1e-4, atol=1e-7
        )


def controls(net, seed):
    generator = np.random.default_rng(seed)
    return {
        name: (0.1 * generator.standard_normal(stop - start)).astype(np.float32)
        for name, (start, stop) in net.offsets.items()
    }


def test_scaffold_keeps_option_two_of_algorithm_1():
    """c_i+ = c_i - c + (x - y) / (K * rate), for plain SGD; the change of c_i is sent."""
    rate = SGD["learning_rate"]
    training = training_of(local_epochs=3, dropout=0.0, **SGD)
    server, own = controls(training.net, 1), controls(training.net, 2)
    result = training.run_round(1, LocalRule(controls=True), server, own)
    for name in training.net.names:
        sent = result.update.weights[name]
        wanted = own[name] - server[name] - sent / (result.steps * rate)
        np.testing.assert_allclose(result.controls[name], wanted, rtol=1e-2, atol=2e-4)
        change = result.controls[name] - own[name]
        np.testing.assert_allclose(result.update.controls[name], change, atol=1e-6)
    assert result.update.weights.keys() == {*training.net.names}
    assert result.update.controls.keys() == server.keys()


def test_scaffold_corrects_every_step():
    """One step by hand: w - rate * (gradient - c_i + c)."""
    training = training_of(data=specimens(6), batch_size=6, dropout=0.0, **SGD)
    server, own = controls(training.net, 1), controls(training.net, 2)
    training.gradient(torch.arange(6), np.random.default_rng(0))
    gradient = training.net.split(training.net.gradient)
    result = training.run_round(1, LocalRule(controls=True), server, own)
    assert result.steps == 1
    for name in training.net.names:
        wanted = -SGD["learning_rate"] * (gradient[name] - own[name] + server[name])
        np.testing.assert_allclose(result.update.weights[name], wanted, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(result.controls[name], gradient[name], rtol=1e-3, atol=1e-6)


def test_scaffolds_first_round_has_no_control_of_its_own():
    training = training_of(dropout=0.0, **SGD)
    zero = {key: np.zeros_like(v) for key, v in controls(training.net, 1).items()}
    result = training.run_round(1, LocalRule(controls=True), zero, {})
    plain = run(dropout=0.0, **SGD)
    for name in training.net.names:
        np.testing.assert_allclose(
            result.update.weights[name], plain.update.weights[name], atol=1e-7
        )
        np.testing.assert_array_equal(result.update.controls[name], result.controls[name])


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
