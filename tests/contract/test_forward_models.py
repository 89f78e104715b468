from __future__ import annotations

import numpy as np
import pytest

from fedfuse_ray.data.phantoms import FORWARD_MODELS, ideal, known_models, public
from fedfuse_ray.rng import generator
from tests.support.paths import EXAMPLES

FILES = [str(p) for p in sorted(EXAMPLES.glob("*/forward.py"))]
MODELS = known_models(FILES)
SIZES = {"small": (16, 64), "demo": (32, 256), "paper-gpu": (224, 1024)}


def render(model, factors, sizes=(32, 256), seed=0):
    shape = model.shape(*sizes)
    rng = generator(seed, "test", model.modality)
    return model.render(np.asarray(factors, np.float32), shape, ideal(len(factors)), rng)


def statistics(images):
    """What a simple reader sees: intensities by place and by rank, and power by frequency."""
    count = len(images)
    flat = images.reshape(count, images.shape[1], -1)
    quantiles = np.quantile(flat, np.linspace(0.02, 0.98, 17), axis=2).transpose(1, 0, 2)
    if images.ndim == 4:
        side = images.shape[-1]
        coarse = images.reshape(count, images.shape[1], 8, side // 8, 8, side // 8).mean((3, 5))
        power = np.abs(np.fft.rfft2(images.mean(1)))
        y, x = np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij")
        ring = (np.hypot(x, y) * side).astype(int)
        radial = np.stack([power[:, ring == r].mean(1) for r in range(side // 2)], axis=1)
    else:
        coarse = images[:, :, ::4]
        radial = np.abs(np.fft.rfft(images[:, 0]))[:, :32]
    parts = [quantiles, coarse, np.log(radial + 1e-3)]
    return np.concatenate([part.reshape(count, -1) for part in parts], axis=1)


def explained(features, target, train=1200):
    """The part of the variance that ridge regression explains on specimens it has not seen."""
    scale = features[:train].std(0) + 1e-6
    x = (features - features[:train].mean(0)) / scale
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    a = x[:train].T @ x[:train] + 30.0 * np.eye(x.shape[1])
    guess = x[train:] @ np.linalg.solve(a, x[:train].T @ target[:train])
    return 1.0 - np.mean((guess - target[train:]) ** 2) / np.var(target[train:])


@pytest.mark.parametrize("modality", MODELS)
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_images_have_the_shape_and_the_range(modality, sizes):
    model = MODELS[modality]
    factors = np.array([[-9, -9, -9], [9, 9, 9], [0, 0, 0]])
    images = render(model, factors, sizes)
    assert images.dtype == np.float32
    assert images.shape == (3, *model.shape(*sizes))
    assert np.isfinite(images).all()
    assert images.min() >= 0.0
    assert images.max() <= 1.0
    assert images.std(axis=tuple(range(1, images.ndim))).min() > 0.02


@pytest.mark.parametrize("modality", MODELS)
def test_the_hidden_factor_changes_nothing_and_the_others_do(modality):
    model = MODELS[modality]
    hidden = 3 - model.strong - model.weak
    assert {model.strong, model.weak, hidden} == {0, 1, 2}
    base = render(model, np.zeros((4, 3)))
    for factor in range(3):
        moved = np.zeros((4, 3))
        moved[:, factor] = 1.5
        same = np.array_equal(render(model, moved), base)
        assert same == (factor == hidden)


def test_every_factor_is_shown_strongly_once_and_weakly_once():
    for family in {model.family.name for model in FORWARD_MODELS.values()}:
        members = [m for m in FORWARD_MODELS.values() if m.family.name == family]
        assert sorted(m.strong for m in members) == [0, 1, 2]
        assert sorted(m.weak for m in members) == [0, 1, 2]


def test_the_examples_show_every_factor_and_none_twice_strongly():
    assert len(FILES) == 2
    for family in {model.family.name for model in MODELS.values()}:
        members = [m for m in MODELS.values() if m.family.name == family]
        assert {f for m in members for f in (m.strong, m.weak)} == {0, 1, 2}
        assert len({m.strong for m in members}) == len(members)


@pytest.mark.parametrize("modality", MODELS)
def test_a_simple_reader_sees_the_strong_factor_best_and_the_hidden_not_at_all(modality):
    model = MODELS[modality]
    images, factors = public(modality, 1800, seed=5, feature=0.3, models=MODELS)
    features = statistics(images.astype(np.float64))
    strong, weak, hidden = (
        explained(features, factors[:, i].astype(np.float64))
        for i in (model.strong, model.weak, 3 - model.strong - model.weak)
    )
    assert strong > 0.35
    assert strong > weak > 0.05
    assert hidden < 0.05


@pytest.mark.parametrize("modality", MODELS)
def test_the_same_stream_gives_the_same_images(modality):
    first, again = (public(modality, 5, seed=1, models=MODELS) for _ in range(2))
    other = public(modality, 5, seed=2, models=MODELS)
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])
