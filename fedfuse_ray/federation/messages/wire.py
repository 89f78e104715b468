"""What crosses the network: bytes with a checked header, never a pickle.

Layout: magic, version, header length, header (JSON: institution, round, codec, block table), the
blocks' payloads one after the other, and a BLAKE2b digest of all before it.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from fedfuse_ray.errors import ProtocolError

_MAGIC = b"FFRU"
_VERSION = 1
_PREFIX = struct.Struct("<4sHI")
_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Message:
    """One institution's encoded update.

    Attributes:
        institution: The sender.
        round: The round that it belongs to.
        codec: How the blocks are encoded.
        blocks: Encoded payload of each block, in the sender's order.
        sizes: Number of entries that each block decodes to.
        steps: Local optimizer steps behind the update.
        loss: Mean training loss over them, where the server weighs by it; else it stays at home.
    """

    institution: str
    round: int
    codec: str
    blocks: Mapping[str, bytes | memoryview]
    sizes: Mapping[str, int]
    steps: int
    loss: float | None = None


def pack(message: Message) -> bytes:
    """Return the message as bytes."""
    fields = {
        "institution": message.institution,
        "round": message.round,
        "codec": message.codec,
        "steps": message.steps,
        "blocks": [
            [name, len(payload), message.sizes[name]] for name, payload in message.blocks.items()
        ],
    }
    if message.loss is not None:
        fields["loss"] = message.loss
    header = json.dumps(fields, separators=(",", ":")).encode()
    parts = [_PREFIX.pack(_MAGIC, _VERSION, len(header)), header, *message.blocks.values()]
    return b"".join([*parts, _digest(parts)])


def unpack(data: bytes | memoryview) -> Message:
    """Read a message back, without copying its payloads.

    Raises:
        ProtocolError: It is truncated or altered, or of another version.
    """
    try:
        view = memoryview(data).cast("B")
    except TypeError as error:
        raise ProtocolError(f"an update is bytes in one piece: {error}") from None
    if len(view) < _PREFIX.size + _DIGEST_BYTES:
        raise ProtocolError(f"a message of {len(view)} bytes is too short to be an update")
    magic, version, length = _PREFIX.unpack_from(view)
    if magic != _MAGIC or version != _VERSION:
        raise ProtocolError(f"not an update of version {_VERSION}: it begins {bytes(view[:6])!r}")
    body, digest = view[:-_DIGEST_BYTES], view[-_DIGEST_BYTES:]
    if _digest([body]) != bytes(digest):
        raise ProtocolError("the update was altered on its way: its digest does not fit")
    try:
        return _read(body, length)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ProtocolError(f"the update's header can't be read: {error}") from None


def _read(body: memoryview, length: int) -> Message:
    """Read header and payloads. A digest that fits says nothing about who computed it."""
    header = json.loads(bytes(body[_PREFIX.size : _PREFIX.size + length]))
    payload = body[_PREFIX.size + length :]
    blocks: dict[str, memoryview] = {}
    sizes: dict[str, int] = {}
    offset = 0
    for name, nbytes, size in header["blocks"]:
        if name in blocks:
            raise ValueError(f"the block {name} stands twice")
        end = offset + _count(nbytes)
        blocks[_text(name)], sizes[name] = payload[offset:end], _count(size)
        offset = end
    if offset != len(payload):
        raise ValueError("the block table does not cover the payload")
    return Message(
        institution=_text(header["institution"]),
        round=_count(header["round"]),
        codec=_text(header["codec"]),
        blocks=blocks,
        sizes=sizes,
        steps=_count(header["steps"]),
        loss=_loss(header["loss"]) if "loss" in header else None,
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _loss(value: object) -> float:
    if not isinstance(value, float) or not 0.0 <= value < math.inf:
        raise ValueError(f"{value!r} is no loss")
    return value


def _digest(parts: list[bytes | memoryview]) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        digest.update(part)
    return digest.digest()
