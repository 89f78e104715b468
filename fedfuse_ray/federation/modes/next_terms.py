"""What changes from round to round of a private run: its clipping norm, its noise, its bits.

All follow from released sums alone, so they are post-processing. They are part of the server's
state, and so of its checkpoints, and of every broadcast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, replace

import numpy as np

from fedfuse_ray.federation.checkpoints.state import NoiseHistory, ServerState
from fedfuse_ray.federation.modes.grid import Grid
from fedfuse_ray.federation.modes.integers import (
    Integers,
    Owners,
    released_signal,
    unclipped_count,
)
from fedfuse_ray.federation.plan.noise_shape import COUNT
from fedfuse_ray.federation.plan.terms import MOST_GROWTH
from fedfuse_ray.federation.server.adaptation import Adaptation
from fedfuse_ray.privacy.accounting.adaptive_budget import Signal, Spending
from fedfuse_ray.privacy.mechanisms.adaptive_clipping import AdaptiveClip


def after_round(
    state: ServerState,
    sums: Mapping[str, Integers],
    owners: Owners,
    grid: Grid,
    adaptation: Adaptation,
) -> ServerState:
    """Return the server's state with the next round's terms.

    Args:
        state: The server's state, as the round was run with it.
        sums: What the round revealed, by block.
        owners: Whose integers are in it.
        grid: The round's grid.
        adaptation: Chooses the next round's bits.
    """
    following, history = state.released, state.noise_history
    rounds = len(grid.terms.factors)
    if following.clip_norm is not None and COUNT in sums:
        moved = _next_clip_norm(sums, owners, grid, following.clip_norm)
        following = replace(following, clip_norm=moved)
    if following.noise_factor is not None and grid.round < rounds:
        history = _extended(history, following.noise_factor, sums, owners, grid)
        spending = Spending(rounds, grid.terms.config.adaptive_budget.spread)
        factor = spending.next_factor(list(history.spent), list(history.signals))
        following = replace(following, noise_factor=factor)
    if grid.coding.adapts(secure=True):
        masked = {name: total for name, total in sums.items() if name != COUNT}
        bits = {name: grid.bits(name) for name in masked}
        finer = max(1.0, state.released.factor / following.factor)
        chosen = adaptation.after_secure_sum(masked, bits, finer)
        following = replace(following, settings={**following.settings, **chosen})
    return replace(state, released=following.as_sent(), noise_history=history)


def _next_clip_norm(
    sums: Mapping[str, Integers], owners: Owners, grid: Grid, clip_norm: float
) -> float:
    """Return the next round's clipping norm, from the noisy count of unclipped records."""
    settings, first = grid.terms.config.adaptive_clipping, grid.terms.config.clip_norm
    clip = AdaptiveClip(clip_norm, settings.target_quantile, settings.learning_rate)
    expected = grid.expected_batch(owners[COUNT])
    moved = clip.update(unclipped_count(sums, grid), expected).clip_norm
    return min(max(moved, first / MOST_GROWTH), first * MOST_GROWTH)


def _extended(
    history: NoiseHistory,
    factor: float,
    sums: Mapping[str, Integers],
    owners: Owners,
    grid: Grid,
) -> NoiseHistory:
    """Return what the next factor is chosen from.

    A round that revealed nothing was charged like any other, but has no signal.
    """
    signals = history.signals
    if sums:
        told = np.array(astuple(released_signal(sums, owners, grid)), np.float32)
        signals = (*signals, Signal(*told.tolist()))
    return NoiseHistory((*history.spent, factor), signals)
