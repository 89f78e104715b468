"""Weights before the first round, and frozen backbones: drawn block by block from the seed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from fedfuse_ray import rng
from fedfuse_ray.blocks import Blocks, Vector
from fedfuse_ray.models.encoders import build_backbone, load_backbone_weights
from fedfuse_ray.models.modules import Encoder, build_block
from fedfuse_ray.models.spec import ENCODER, ModelSpec, encoder_of_block

FEATURE_NORM = 4.0
"""Norm of projected features: with it a head's gradient is of the order of its clipping norm."""


@contextmanager
def seeded(seed: int, purpose: str, *keys: str | int) -> Iterator[None]:
    """Run torch's initialisers on a stream of their own, and put the global one back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.derive(seed, purpose, *keys) >> 1)
        yield


def initial_blocks(spec: ModelSpec) -> Blocks:
    """Return the first weights of every block of the federation."""
    return {name: _initial(spec, name) for name in spec.all_blocks()}


def block_sizes(spec: ModelSpec) -> dict[str, int]:
    """Return the number of parameters of every block, without drawing any."""
    shapes = block_shapes(spec)
    return {name: sum(math.prod(shape) for shape in each) for name, each in shapes.items()}


def block_shapes(spec: ModelSpec) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Return the shapes of every block's parameters, in the order in which they are flattened."""
    with torch.device("meta"):
        blocks = {name: build_block(spec, name) for name in spec.all_blocks()}
    return {
        name: tuple(tuple(p.shape) for p in block.parameters()) for name, block in blocks.items()
    }


def frozen_backbone(spec: ModelSpec, modality: str, tier: str = "") -> nn.Module:
    """Return a tier's frozen backbone for a modality, the same wherever it is built."""
    config = spec.config.encoder_for(modality, tier)
    with seeded(spec.seed, "frozen backbone", modality):
        backbone = build_backbone(config, spec.shapes[modality])
    load_backbone_weights(backbone, config, modality, spec.shapes[modality], spec.origin(modality))
    return backbone.eval().requires_grad_(False)


def frozen_projection(spec: ModelSpec, modality: str, tier: str, features: int) -> torch.Tensor:
    """Return the fixed random orthogonal matrix [features, projection] of a modality."""
    width = spec.config.encoder_for(modality, tier).projection or features
    matrix = torch.empty(features, width)
    generator = rng.torch_generator(spec.seed, "feature projection", modality)
    nn.init.orthogonal_(matrix, generator=generator)
    return matrix


def project(features: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Standardise each feature vector [N, F] within itself, and project it: [N, P].

    Signed square roots come first, so that no few strong features decide (Perronnin et al., 2010,
    doi 10.1007/978-3-642-15561-1_11, section 3.2). Nothing is fitted on anybody's data: mean and
    standard deviation are those of a vector's own entries. Results have a norm of about
    `FEATURE_NORM`, whatever F and P are.
    """
    rooted = features.sign() * features.abs().sqrt()
    centred = rooted - rooted.mean(dim=1, keepdim=True)
    spread = centred.square().mean(dim=1, keepdim=True).sqrt()
    # A vector without any spread says nothing: zeros.
    own = torch.where(spread > 0, centred / spread.clamp(min=1e-30), torch.zeros_like(centred))
    return own @ matrix * (FEATURE_NORM / min(matrix.shape) ** 0.5)


def _initial(spec: ModelSpec, name: str) -> Vector:
    with seeded(spec.seed, "initial weights", name):
        block = build_block(spec, name)
    modality, tier = encoder_of_block(name)
    if name.startswith(ENCODER) and modality in spec.shapes and not spec.frozen(modality, tier):
        config = spec.config.encoder_for(modality, tier)
        backbone = block.backbone if isinstance(block, Encoder) else block
        shape, origin = spec.shapes[modality], spec.origin(modality)
        load_backbone_weights(backbone, config, modality, shape, origin)
    flat = torch.cat([p.detach().reshape(-1) for p in block.parameters()])
    values: Vector = flat.numpy()
    return values
