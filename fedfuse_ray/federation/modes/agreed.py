"""What an institution checks before it believes a broadcast: the terms that were agreed on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.federation.modes.exchange import Turn
from fedfuse_ray.federation.modes.grid import WIDEST_MODULUS
from fedfuse_ray.federation.plan.terms import MOST_GROWTH

if TYPE_CHECKING:  # torch: the server does without
    from fedfuse_ray.federation.institution.institution import Institution

_SLACK = 1.0 + 1e-5
"""Factors are sent as float32."""


def check_broadcast(institution: Institution, turn: Turn) -> float:
    """Check that the server's terms of a round are ones that the plan allows.

    Whatever the server may choose, it can't have institutions add less noise than was agreed: every
    factor lies within the configured spread, and all of them together cost no more than a constant
    schedule.

    Returns:
        What the institution's noise has cost with this round, under an adaptive schedule; else 0.

    Raises:
        ProtocolError: The broadcast's sizes, clipping norm, noise or bits were not agreed on.
    """
    terms, released, plan = institution.plan.terms, turn.broadcast.released, institution.plan
    if turn.broadcast.sizes != institution.sizes:
        raise ProtocolError("the server's blocks have other sizes than the plan's")
    if (released.clip_norm is not None) != terms.adaptive:
        raise ProtocolError("a clipping norm is broadcast if, and only if, it is adaptive")
    if released.clip_norm is not None:
        ratio = released.clip_norm / terms.config.clip_norm
        if not MOST_GROWTH * ratio * _SLACK >= 1.0 or not ratio <= MOST_GROWTH * _SLACK:
            raise ProtocolError(f"a clipping norm of {released.clip_norm:g} was not agreed on")
    if any(not 2 <= s.bits <= WIDEST_MODULUS for s in released.settings.values()):
        raise ProtocolError("the server asks for words of bits that do not exist")
    if released.settings and not plan.coding.adapts(secure=True):
        raise ProtocolError("the server chose bits, but no policy was agreed on")
    if (released.noise_factor is not None) != terms.spends_adaptively:
        raise ProtocolError("a factor on the noise is broadcast if, and only if, it is adaptive")
    if released.noise_factor is None:
        return 0.0
    spread = terms.config.adaptive_budget.spread * _SLACK
    spent = turn.kept.spent + released.noise_factor**-2 if released.noise_factor > 0 else math.inf
    if not 1.0 / spread <= released.noise_factor <= spread or spent > len(terms.factors) * _SLACK:
        raise ProtocolError(f"a factor of {released.noise_factor:g} on the noise was not agreed on")
    return spent
