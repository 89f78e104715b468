"""Secure sums of integers as a round reveals them, without the protocol around them."""

from __future__ import annotations

from functools import cache

import numpy as np

from fedfuse_ray.federation.messages.released import NOTHING_RELEASED
from fedfuse_ray.federation.modes import integers as secure_integers
from fedfuse_ray.federation.modes.grid import grid_of
from fedfuse_ray.federation.modes.integers import noisy_words
from fedfuse_ray.federation.plan.noise_shape import COUNT
from fedfuse_ray.models.initial import block_sizes
from fedfuse_ray.privacy.mechanisms.integers import INTEGER_NOISE
from fedfuse_ray.privacy.secure_aggregation import from_modular
from tests.support.federations import plan_of, tiny

SIGMA, CLIP, ROUNDS = 2.0, 0.5, 12
FINE, COARSE = "compression.codec=fp32", "compression.codec=modint"
ADAPTIVE = "privacy.adaptive_clipping.enabled=true"
_KINDS = {
    "fine": (FINE,),
    "coarse": (COARSE,),
    # A coarse grid that is nearly none, so that decoded noise is not rounded.
    "exact": (COARSE, "compression.rounding_step=0.01"),
}


def secure_plan(*settings):
    usual = (
        f"training.rounds={ROUNDS}",
        "privacy.target_epsilon=null",
        f"privacy.noise_multiplier={SIGMA}",
        f"privacy.clip_norm={CLIP}",
    )
    return plan_of(tiny(*usual, *settings, paradigm="fedfuse"))


@cache
def plan_on(grid):
    """Return a plan whose sums lie on the `fine`, the `coarse` or the `exact` grid."""
    return secure_plan(*_KINDS[grid])


def silence(monkeypatch, coarse_noise):
    """Put another sampler, of noise in units of the grid, in both grids' places."""
    monkeypatch.setattr(
        secure_integers,
        "rounded_normal",
        lambda centres, std, generator: np.rint(
            centres + coarse_noise(centres.size, std, generator)
        ).astype(np.int64),
    )
    monkeypatch.setitem(
        INTEGER_NOISE,
        "gaussian",
        lambda size, std, generator: np.rint(coarse_noise(size, std, generator)).astype(np.int64),
    )


def summed(plan, inputs, round=1, released=NOTHING_RELEASED):
    """Return the sums of integers that secure aggregation would reveal in a round of a plan."""
    return summed_on(grid_of(plan, round, released), inputs, plan.randomness)


def summed_on(grid, inputs, draws):
    """Return the sums of integers that secure aggregation would reveal on a round's grid."""
    totals = {}
    for name, blocks in inputs.items():
        for block, words in noisy_words(blocks, name, grid, draws).items():
            totals[block] = totals.get(block, 0) + words.astype(np.int64)
    bits = {block: grid.bits(block) for block in totals}
    return {
        block: from_modular((total & ((1 << bits[block]) - 1)).astype(np.uint64), bits[block])
        for block, total in totals.items()
    }


def clipped_inputs(plan, scale=CLIP, count=False):
    """Return a vector of norm `scale` for every owner and block."""
    generator = np.random.default_rng(0)
    inputs = {}
    for p in plan.participants:
        inputs[p.name] = {}
        for block in plan.blocks_of(p):
            size = plan.coding.coordinates(block, block_sizes(plan.spec)[block])
            vector = generator.standard_normal(size)
            inputs[p.name][block] = (scale * vector / np.linalg.norm(vector)).astype(np.float32)
        if count:
            inputs[p.name][COUNT] = np.array([3.5], np.float32)
    return inputs


def true_sums(inputs):
    sums = {}
    for blocks in inputs.values():
        for block, vector in blocks.items():
            sums[block] = sums.get(block, 0) + vector.astype(float)
    return sums
