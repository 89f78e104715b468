"""What crosses the network: bytes with a checked header, never a pickle.

Layout: magic, version, header length, header (JSON: institution, round, codec, block table), the
blocks' payloads one after the other, and a BLAKE2b digest of all before it.
"""

from __future__ import annotations

import hashlib
import json
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
    """

    institution: str
    round: int
    codec: str
    blocks: Mapping[str, bytes | memoryview]
    sizes: Mapping[str, int]
    steps: int


def pack(message: Message) -> bytes:
    """Return the message as bytes."""
    header = json.dumps(
        {
            "institution": message.institution,
            "round": message.round,
            "codec": message.codec,
            "steps": message.steps,
            "blocks": [
                [name, len(payload), message.sizes[name]]
                for name, payload in message.blocks.items()
            ],
        },
        separators=(",", ":"),
    ).encode()
    parts = [_PREFIX.pack(_MAGIC, _VERSION, len(header)), header, *message.blocks.values()]
    return b"".join([*parts, _digest(parts)])


def unpack(data: bytes | memoryview) -> Message:
    """Read a message back, without copying its payloads.

    Raises:
        ProtocolError: It is truncated or altered, or of another version.
    """
    view = memoryview(data)
    if len(view) < _PREFIX.size + _DIGEST_BYTES:
        raise ProtocolError(f"a message of {len(view)} bytes is too short to be an update")
    magic, version, length = _PREFIX.unpack_from(view)
    if magic != _MAGIC or version != _VERSION:
        raise ProtocolError(f"not an update of version {_VERSION}: it begins {bytes(view[:6])!r}")
    body, digest = view[:-_DIGEST_BYTES], view[-_DIGEST_BYTES:]
    if _digest([body]) != bytes(digest):
        raise ProtocolError("the update was altered on its way: its digest does not fit")
    try:
        header = json.loads(bytes(body[_PREFIX.size : _PREFIX.size + length]))
        payload = body[_PREFIX.size + length :]
        blocks: dict[str, memoryview] = {}
        sizes: dict[str, int] = {}
        offset = 0
        for name, nbytes, size in header["blocks"]:
            blocks[name], sizes[name] = payload[offset : offset + nbytes], size
            offset += nbytes
        if offset != len(payload):
            raise ValueError("the block table does not cover the payload")
        return Message(
            institution=header["institution"],
            round=header["round"],
            codec=header["codec"],
            blocks=blocks,
            sizes=sizes,
            steps=header["steps"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ProtocolError(f"the update's header can't be read: {error}") from None


def _digest(parts: list[bytes | memoryview]) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        digest.update(part)
    return digest.digest()
