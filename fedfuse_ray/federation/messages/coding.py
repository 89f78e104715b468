"""How a plan's blocks are encoded: which codec, and how strongly in which round.

Strengths (`Setting`) are public. They come from the config, or from the adaptive policy at the
server, which broadcasts them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from fedfuse_ray.blocks import Blocks, Vector
from fedfuse_ray.compression import CODECS
from fedfuse_ray.compression.codec import Codec, Context, Setting
from fedfuse_ray.compression.countsketch import CountSketch
from fedfuse_ray.compression.feedback import ef14, ef21
from fedfuse_ray.compression.projection import SparseProjection
from fedfuse_ray.config import CompressionConfig
from fedfuse_ray.config.settings.compression import FEEDBACK_CODECS

Settings = Mapping[str, Setting]
"""The policy's bits and fraction of each block, where there is a policy."""

Encode = Callable[[Codec, Vector, Vector | None, Setting, Context], tuple[bytes, Vector]]

_FEEDBACK: dict[str, Encode] = {"ef14": ef14, "ef21": ef21}
_SKETCHES = frozenset({"subspace", "countsketch"})
_DEFAULT_BITS = 8
_DEFAULT_FRACTION = 0.1


@dataclass(frozen=True)
class Coding:
    """An experiment's codec, with all that encoding and decoding need to agree on.

    Attributes:
        config: The compression config.
        seed: Root of the codec's public random streams.
        mode: The privacy mode.
        shapes: Each block's parameter tensors, for codecs that see matrices.
    """

    config: CompressionConfig
    seed: int
    mode: str
    shapes: Mapping[str, tuple[tuple[int, ...], ...]]

    @property
    def secure(self) -> bool:
        """Whether sums are taken under masks."""
        return self.mode == "record-distributed"

    @property
    def encrypted(self) -> bool:
        """Whether sums are taken on ciphertexts."""
        return self.config.encryption != "none"

    @property
    def name(self) -> str:
        """What updates are sent as: the codec, or the encryption."""
        return self.config.encryption if self.encrypted else self.config.codec

    @property
    def codec(self) -> Codec:
        """The codec."""
        return CODECS[self.config.codec]

    @property
    def feedback(self) -> str:
        """`ef14`, `ef21` or `none`."""
        if self.config.feedback != "auto":
            return self.config.feedback
        owes = self.config.codec in FEEDBACK_CODECS and self.mode == "none"
        return "ef14" if owes else "none"

    def adapts(self, *, secure: bool) -> bool:
        """Whether the policy moves strengths, in rounds with or without secure aggregation."""
        config = self.config
        if secure != self.secure or config.policy.kind == "fixed":
            return False
        if config.policy.asked:
            return True
        return secure and config.codec != "fp32" and config.bits is None

    @property
    def sketches(self) -> bool:
        """Whether the codec is a linear map to fewer coordinates."""
        return self.config.codec in _SKETCHES

    def setting(self, block: str, settings: Settings) -> Setting:
        """Return a block's strength: the config's, or the policy's where it was broadcast."""
        config = self.config
        bits = config.bits or _DEFAULT_BITS
        fraction = self._fraction
        if (chosen := settings.get(block)) is not None:
            bits, fraction = chosen.bits, chosen.fraction
        return Setting(
            bits=bits,
            fraction=fraction,
            rank=config.rank,
            smallest=config.smallest,
            signs=config.fraction or 1.0,
            contract=self.feedback != "none",
        )

    @property
    def _fraction(self) -> float:
        return self.config.fraction or _DEFAULT_FRACTION

    def context(self, block: str, round: int, institution: str = "") -> Context:
        """Return the names of a block's random streams in a round."""
        return Context(self.seed, round, block, institution, self.shapes.get(block, ()))

    def encode(
        self, blocks: Blocks, memory: Blocks, round: int, institution: str, settings: Settings
    ) -> tuple[dict[str, bytes], Blocks]:
        """Encode an update.

        Args:
            blocks: What is to be sent, by name on the wire.
            memory: What error feedback kept, by the same names.
            round: From 1.
            institution: The sender.
            settings: The policy's choices.

        Returns:
            Each block's payload, and the new memory.
        """
        payloads: dict[str, bytes] = {}
        kept: Blocks = {}
        for name, vector in blocks.items():
            setting = self.setting(name, settings)
            context = self.context(name, round, institution)
            if self.feedback == "none":
                payloads[name] = self.codec.encode(vector, setting, context)
                continue
            encode = _FEEDBACK[self.feedback]
            before = memory.get(name)
            payloads[name], kept[name] = encode(self.codec, vector, before, setting, context)
        return payloads, kept

    def decode(
        self,
        payload: bytes | memoryview,
        block: str,
        size: int,
        round: int,
        institution: str,
        settings: Settings,
    ) -> Vector:
        """Return one block's update, or under `ef21` its difference, float32 [size].

        Raises:
            ProtocolError: The payload can't be decoded.
        """
        context = self.context(block, round, institution)
        return self.codec.decode(payload, size, self.setting(block, settings), context)

    def projection(self, block: str, size: int, round: int) -> SparseProjection | None:
        """Return the sketch of a block, or None where the codec is none."""
        if not self.sketches:
            return None
        config = self.config
        setting = Setting(fraction=self._fraction, smallest=config.smallest)
        return _projection(config.codec, size, setting, self.context(block, round))

    def coordinates(self, block: str, size: int) -> int:
        """Return how many numbers stand for a block of `size` parameters."""
        projection = self.projection(block, size, 1)
        return size if projection is None else projection.coordinates

    def lift(self, coordinates: Vector, block: str, size: int, round: int) -> Vector:
        """Return the block that a sketch stands for, float32 [size]."""
        projection = self.projection(block, size, round)
        if projection is None:
            return coordinates
        if self.config.codec == "countsketch":
            return CountSketch().lift(coordinates, projection)
        return projection.lift(coordinates)


@lru_cache(maxsize=64)
def _projection(codec: str, size: int, setting: Setting, context: Context) -> SparseProjection:
    return CODECS[codec].projection(size, setting, context)  # type: ignore[attr-defined]
