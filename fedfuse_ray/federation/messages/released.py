"""What the server chose for the next round from released sums, and broadcasts.

It is post-processing of what is public already. On the wire each value is a small float32 vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fedfuse_ray.blocks import Blocks, Vector
from fedfuse_ray.compression.codec import Setting
from fedfuse_ray.errors import InputError, ProtocolError

_CLIP_NORM, _NOISE_FACTOR, _SETTING = "clipping/norm", "noise/factor", "setting/"


@dataclass(frozen=True)
class Released:
    """The terms of one round that change with what was released.

    Attributes:
        clip_norm: The round's clipping norm, under adaptive clipping.
        noise_factor: On the round's noise, under an adaptive schedule.
        settings: The policy's bits and fractions, by block.
    """

    clip_norm: float | None = None
    noise_factor: float | None = None
    settings: Mapping[str, Setting] = field(default_factory=dict)

    @property
    def factor(self) -> float:
        """The factor on the round's noise; 1 unless the schedule is adaptive."""
        return 1.0 if self.noise_factor is None else self.noise_factor

    def on_wire(self) -> Blocks:
        """Return the values as vectors: a norm or a factor [1], a setting [bits, fraction]."""
        named: Blocks = {}
        if self.clip_norm is not None:
            named[_CLIP_NORM] = np.array([self.clip_norm], np.float32)
        if self.noise_factor is not None:
            named[_NOISE_FACTOR] = np.array([self.noise_factor], np.float32)
        for block, s in self.settings.items():
            named[_SETTING + block] = np.array([s.bits, s.fraction], np.float32)
        return named

    @classmethod
    def from_wire(cls, named: Mapping[str, Vector]) -> Released:
        """Read what `on_wire` returned.

        Raises:
            ProtocolError: A vector is none of these, has another length, or a value that no round
                has.
        """
        clip_norm = noise_factor = None
        settings = {}
        for name, vector in named.items():
            if name == _CLIP_NORM:
                clip_norm = _positive(name, vector)
            elif name == _NOISE_FACTOR:
                noise_factor = _positive(name, vector)
            elif name.startswith(_SETTING):
                settings[name.removeprefix(_SETTING)] = _setting(name, vector)
            else:
                raise ProtocolError(f"the broadcast holds {name!r}, which nobody knows")
        return cls(clip_norm, noise_factor, settings)

    def as_sent(self) -> Released:
        """Return the values as float32 holds them, so that the server uses what others read."""
        return Released.from_wire(self.on_wire())


NOTHING_RELEASED = Released()
"""Where nothing changes from round to round."""


def _positive(name: str, vector: Vector) -> float:
    (value,) = _values(name, vector, 1)
    if value <= 0:
        raise ProtocolError(f"the broadcast's {name!r} is {value:g}; it must be above 0")
    return value


def _setting(name: str, vector: Vector) -> Setting:
    bits, fraction = _values(name, vector, 2)
    if not bits.is_integer():
        raise ProtocolError(f"the broadcast's {name!r} has {bits:g} bits; they must be whole")
    try:
        return Setting(bits=int(bits), fraction=fraction)
    except InputError as error:
        raise ProtocolError(f"the broadcast's {name!r}: {error}") from error


def _values(name: str, vector: Vector, count: int) -> list[float]:
    values = [float(value) for value in vector]
    if len(values) != count or not np.isfinite(values).all():
        raise ProtocolError(
            f"the broadcast's {name!r} holds {len(values)} values; it must hold {count}, all finite"
        )
    return values


def needed_by(name: str, owned: frozenset[str]) -> bool:
    """Whether an owner of some blocks needs a released vector: all but others' settings."""
    return not name.startswith(_SETTING) or name.removeprefix(_SETTING) in owned
