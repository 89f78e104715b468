"""What a reference of Ray refers to, for readers and for the type checker."""

from __future__ import annotations

from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from fedfuse_ray.federation.messages.updates import Kept

T_co = TypeVar("T_co", covariant=True)


class Ref(Protocol[T_co]):
    """A reference to an object in Ray's store. Ray itself publishes no types."""

    def hex(self) -> str:
        """Return its id."""
        ...


Messages = list[tuple[str, npt.NDArray[np.uint8]]]
"""Sender and message of the institutions in one actor; Ray reads arrays without a copy."""

States = dict[str, Kept]
"""What the institutions in one actor keep, by name."""
