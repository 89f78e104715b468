"""A small network, specimens with missing images, and local training over them."""

from __future__ import annotations

from typing import get_args

import torch

from fedfuse_ray.config import FusionKind, TrainingConfig
from fedfuse_ray.federation.institution.tensors import TensorData
from fedfuse_ray.federation.institution.training import LocalTraining, training_loss
from fedfuse_ray.federation.strategies import LocalRule
from fedfuse_ray.models.initial import initial_blocks
from fedfuse_ray.models.net import CrossModalNet
from tests.support.federations import spec_of

MODALITIES = ("ct", "mri")
SGD = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.05}
FUSIONS = get_args(FusionKind)


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


def loss_of(net, data, shown=None, rows=slice(None)):
    present = data.present[rows]
    shown = present if shown is None else shown
    return training_loss(net, data.batch(rows), present, shown, data.labels[rows])
