"""A secure run whose second round is cut off after its survivors were confirmed, and begun anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from fedfuse_ray.federation.modes.masked import MaskedStep
from tests.support.federations import tiny
from tests.support.watching import NO_COLLUDERS

ROUND, LOST = 2, "med-02"
# Without a target, since a round that is charged twice would not fit into one.
PRIVATE = ("privacy.target_epsilon=null", "privacy.noise_multiplier=8.0", NO_COLLUDERS)


def experiment_of(*settings: str) -> Any:
    """Return a private experiment in which one may be lost."""
    return tiny(*PRIVATE, *settings, paradigm="fedfuse")


def cut_off(patch: pytest.MonkeyPatch, calls: type, error: BaseException) -> None:
    """Lose the second round once, before its sums are unmasked but after all confirmed."""
    finish, left = calls.finish, [error]  # type: ignore[attr-defined]

    def losing(self: Any, round: int, sent: Any) -> Any:
        if round == ROUND and left:
            raise left.pop()
        return finish(self, round, sent)

    patch.setattr(calls, "finish", losing)


def altered(messages: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return messages of which one sender's is altered."""
    found = []
    for who, data in messages:
        bytes_ = bytearray(np.frombuffer(data, np.uint8).tobytes())
        if who == LOST:
            bytes_[-20] ^= 1
        found.append((who, type(data)(bytes_) if isinstance(data, bytes) else np.array(bytes_)))
    return found


def is_update(step: str, round: int) -> bool:
    """Whether a step of a round is the one whose message is to be altered."""
    return round == ROUND and step == MaskedStep.MASK
