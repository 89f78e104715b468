"""The broadcast at the start of a round, as bytes, and how an institution reads it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from fedfuse_ray.blocks import Blocks, Vector
from fedfuse_ray.compression import CODECS
from fedfuse_ray.compression.codec import Codec, Context, Setting
from fedfuse_ray.config.settings.compression import DownlinkConfig
from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.federation.messages import wire
from fedfuse_ray.federation.messages.released import Released
from fedfuse_ray.federation.messages.updates import block_of, controls_on_wire, is_control
from fedfuse_ray.privacy.randomness import digest_of

SERVER = "server"


@dataclass(frozen=True)
class Broadcast:
    """A round's broadcast, from which each institution is sent its own blocks.

    Attributes:
        round: The round that it opens.
        held: Where changes are sent, what institutions hold before them; else the weights.
        changes: Block name to its encoded change; empty where the weights are sent.
        controls: The server's control variates under SCAFFOLD, by block; else empty.
        released: The round's clipping norm, noise and codec settings, where they change.
        attempt: How often the round was begun before, in this session.
        epoch: How often its noise was drawn anew, and charged again.
    """

    round: int
    held: Blocks
    changes: Mapping[str, bytes]
    controls: Blocks = field(default_factory=dict)
    released: Released = field(default_factory=Released)
    attempt: int = 0
    epoch: int = 0

    @property
    def sizes(self) -> dict[str, int]:
        """Number of parameters of each block, which is public."""
        return {name: vector.size for name, vector in self.held.items()}

    @property
    def vectors(self) -> Blocks:
        """All but the blocks, by name on the wire."""
        return controls_on_wire(self.controls) | self.released.on_wire()


@dataclass(frozen=True)
class Received:
    """What an institution reads of a broadcast.

    Attributes:
        weights: The weights of its blocks.
        controls: The server's control variates of its blocks.
        released: The round's terms that change.
        nbytes: Length of the message.
    """

    weights: Blocks
    controls: Blocks
    released: Released
    nbytes: int

    @cached_property
    def digest(self) -> bytes:
        """Digest of the incoming weights, on which privacy's randomness depends."""
        return digest_of(self.weights)

    @property
    def basis(self) -> str:
        """Digest of the weights and of the round's terms, hex: what an update answers."""
        return hashlib.sha256(self.digest + repr(self.released).encode()).hexdigest()


@dataclass(frozen=True)
class Downlink:
    """The broadcast's codec.

    Attributes:
        config: Its config.
        seed: Root of its public random streams.
        shapes: Each block's parameter tensors, for codecs that see matrices.
    """

    config: DownlinkConfig
    seed: int
    shapes: Mapping[str, tuple[tuple[int, ...], ...]]

    @property
    def sends_changes(self) -> bool:
        """Whether what is sent is relative to what institutions hold."""
        return self.config.codec != "fp32"

    def encode(self, change: Vector, block: str, round: int) -> bytes:
        """Return a block's change as bytes."""
        return self._codec.encode(change, self._setting, self._context(block, round))

    def decode(self, payload: bytes | memoryview, block: str, size: int, round: int) -> Vector:
        """Return the change that `encode` wrote, float32 [size]."""
        return self._codec.decode(payload, size, self._setting, self._context(block, round))

    def changes(self, weights: Blocks, held: Blocks, round: int) -> dict[str, bytes]:
        """Return each block's change since what institutions hold, encoded."""
        return {
            name: self.encode(vector - held[name], name, round) for name, vector in weights.items()
        }

    def applied(self, held: Blocks, changes: Mapping[str, bytes], round: int) -> Blocks:
        """Return what institutions hold after the changes; the same sums everywhere."""
        return {
            name: vector + self.decode(changes[name], name, vector.size, round)
            for name, vector in held.items()
        }

    def weights(self, broadcast: Broadcast) -> Blocks:
        """Return all weights as institutions have them after the broadcast."""
        if not broadcast.changes:
            return broadcast.held
        return self.applied(broadcast.held, broadcast.changes, broadcast.round)

    def message(self, broadcast: Broadcast, names: Collection[str], behind: bool) -> bytes:
        """Return what one institution is sent.

        Args:
            broadcast: The round's broadcast.
            names: The blocks and vectors that it needs, by name on the wire.
            behind: It missed an earlier broadcast, so it is sent the weights themselves.
        """
        codec = self.config.codec
        payloads: dict[str, bytes] = {}
        if broadcast.changes and not behind:
            payloads = {n: data for n, data in broadcast.changes.items() if n in names}
        else:
            codec, weights = "fp32", self.weights(broadcast)
            payloads = {n: _floats(vector) for n, vector in weights.items() if n in names}
        vectors = broadcast.vectors
        payloads |= {n: _floats(vector) for n, vector in vectors.items() if n in names}
        sizes = broadcast.sizes | {n: vector.size for n, vector in vectors.items()}
        return wire.pack(
            wire.Message(
                institution=SERVER,
                round=broadcast.round,
                codec=codec,
                blocks=payloads,
                sizes={name: sizes[name] for name in payloads},
                steps=0,
            )
        )

    def receive(self, data: bytes, held: Blocks) -> Received:
        """Read a message.

        Args:
            data: What `message` returned.
            held: What the institution held before.

        Raises:
            ProtocolError: It is altered.
        """
        message = wire.unpack(data)
        weights: Blocks = {}
        controls: Blocks = {}
        released: Blocks = {}
        for name, payload in message.blocks.items():
            size = message.sizes[name]
            if is_control(name):
                controls[block_of(name)] = _vector(payload, size)
            elif name not in held:
                released[name] = _vector(payload, size)
            elif message.codec == "fp32":
                weights[name] = _vector(payload, size)
            else:
                weights[name] = held[name] + self.decode(payload, name, size, message.round)
        return Received(weights, controls, Released.from_wire(released), len(data))

    @property
    def _codec(self) -> Codec:
        return CODECS[self.config.codec]

    @property
    def _setting(self) -> Setting:
        return Setting(bits=self.config.bits, fraction=self.config.fraction)

    def _context(self, block: str, round: int) -> Context:
        # A stream of its own, but the same subspace as the uplink's: what is learnt lies in it.
        return Context(self.seed, round, block, SERVER, self.shapes.get(block, ()))


def _floats(vector: Vector) -> bytes:
    return vector.astype("<f4", copy=False).tobytes()


def _vector(payload: bytes | memoryview, size: int) -> Vector:
    if len(payload) != 4 * size:
        raise ProtocolError(f"{len(payload)} bytes for {size} float32 values")
    return np.frombuffer(payload, "<f4")
