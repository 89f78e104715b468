"""What the server changes from round to round of a run's privacy: its clipping norm, its noise.

Both follow from released sums alone, so they are post-processing. They are part of the server's
state, and so of its checkpoints, and of every broadcast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple

import numpy as np

from fedfuse_ray.blocks import Blocks, Vector
from fedfuse_ray.federation.modes.integers import (
    CLIP_NORM,
    NOISE_FACTOR,
    expected_batch,
    released_signal,
    terms_of,
    unclipped_count,
)
from fedfuse_ray.federation.modes.masked import Revealed
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.plan.terms import COUNT, MOST_GROWTH
from fedfuse_ray.privacy.accounting.adaptive_budget import Signal, Spending
from fedfuse_ray.privacy.mechanisms.adaptive_clipping import AdaptiveClip

_SPENT, _SIGNALS = "noise/spent", "noise/signals"
"""Under an adaptive schedule: the factors of the rounds so far, and what each released, [2 T]."""
_NONE = np.zeros(0, np.float32)


def first_terms(plan: Plan) -> Blocks:
    """Return the first round's clipping norm and factor on the noise, where they will change."""
    terms, state = plan.privacy, Blocks()
    if terms is not None and terms.adaptive:
        state[CLIP_NORM] = np.array([terms.config.clip_norm], np.float32)
    if terms is not None and terms.spends_adaptively:
        state[NOISE_FACTOR] = np.ones(1, np.float32)
    return state


def next_terms(revealed: Revealed, plan: Plan, round: int, state: Mapping[str, Vector]) -> Blocks:
    """Return the next round's, from what a round revealed.

    Args:
        revealed: What the round revealed.
        plan: The federation's plan.
        round: From 1.
        state: The server's state, as the round was run with it.
    """
    following: Blocks = {}
    if CLIP_NORM in state:
        moved = _next_clip_norm(revealed, plan, float(state[CLIP_NORM][0]))
        following[CLIP_NORM] = np.array([moved], np.float32)
    if NOISE_FACTOR in state and round < plan.experiment.training.rounds:
        following |= _next_noise(revealed, plan, round, state)
    return following


def _next_clip_norm(revealed: Revealed, plan: Plan, clip_norm: float) -> float:
    """Return the next round's clipping norm, from the noisy count of unclipped records."""
    terms = terms_of(plan)
    settings = terms.config.adaptive_clipping
    if COUNT not in revealed.sums:
        return clip_norm
    expected = expected_batch(plan, revealed.owners[COUNT])
    count = unclipped_count(revealed.sums, plan)
    clip = AdaptiveClip(clip_norm, settings.target_quantile, settings.learning_rate)
    first = terms.config.clip_norm
    moved = clip.update(count, expected).clip_norm
    return min(max(moved, first / MOST_GROWTH), first * MOST_GROWTH)


def _next_noise(revealed: Revealed, plan: Plan, round: int, state: Mapping[str, Vector]) -> Blocks:
    """Return the next round's factor, and all that it was chosen from.

    A round that reveals nothing was charged all the same, and told nothing of the signal.
    """
    spent = np.append(state.get(_SPENT, _NONE), state[NOISE_FACTOR])
    seen = state.get(_SIGNALS, _NONE)
    if revealed.sums:
        signal = released_signal(revealed.sums, revealed.owners, plan, round, state)
        seen = np.append(seen, np.array(astuple(signal), np.float32))
    spread = terms_of(plan).config.adaptive_budget.spread
    spending = Spending(plan.experiment.training.rounds, spread)
    signals = [Signal(*pair) for pair in seen.reshape(-1, 2).tolist()]
    factor = spending.next_factor(spent.tolist(), signals)
    return {_SPENT: spent, _SIGNALS: seen, NOISE_FACTOR: np.array([factor], np.float32)}
