"""What an institution sends, and what it keeps: vectors by block, apart by what they mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fedfuse_ray.blocks import Blocks, Vector

_CONTROL = "control/"
"""How control variates are named on the wire, where they travel beside the blocks."""

Change = Callable[[str, Vector], Vector]
"""From a block's name and its vector to another vector."""


@dataclass(frozen=True)
class Update:
    """What an institution sends of a round, or a sum or mean of such.

    Attributes:
        weights: New minus old weights, by block.
        controls: New minus old control variates of SCAFFOLD, by block; else empty.
    """

    weights: Blocks = field(default_factory=dict)
    controls: Blocks = field(default_factory=dict)

    @classmethod
    def from_wire(cls, named: Mapping[str, Vector]) -> Update:
        """Tell weights and control variates apart by their names on the wire."""
        apart = cls()
        for name, vector in named.items():
            (apart.controls if is_control(name) else apart.weights)[block_of(name)] = vector
        return apart

    def on_wire(self) -> Blocks:
        """Return all vectors by their names on the wire."""
        return self.weights | controls_on_wire(self.controls)

    def map(self, weights: Change, controls: Change | None = None) -> Update:
        """Return every vector changed: weights by `weights`, controls by `controls` or the same."""
        other = controls or weights
        return Update(
            {name: weights(name, vector) for name, vector in self.weights.items()},
            {name: other(name, vector) for name, vector in self.controls.items()},
        )

    def __bool__(self) -> bool:
        return bool(self.weights or self.controls)


@dataclass(frozen=True)
class Kept:
    """What an institution keeps from one round to the next.

    Attributes:
        controls: Its own control variates under SCAFFOLD, by block.
        memory: What error feedback has not sent yet, or what the server already has of it, by
            name on the wire.
        spent: What its rounds under an adaptive schedule of the noise have cost so far: the sum of
            one over the squared factors.
    """

    controls: Blocks = field(default_factory=dict)
    memory: Blocks = field(default_factory=dict)
    spent: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.controls or self.memory or self.spent)


def controls_on_wire(controls: Blocks) -> Blocks:
    """Return control variates by their names on the wire."""
    return {_CONTROL + name: vector for name, vector in controls.items()}


def is_control(name: str) -> bool:
    """Whether a name on the wire is that of a control variate."""
    return name.startswith(_CONTROL)


def block_of(name: str) -> str:
    """Return the block that a name on the wire is about."""
    return name.removeprefix(_CONTROL)
