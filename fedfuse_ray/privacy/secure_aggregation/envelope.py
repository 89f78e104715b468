"""The frame of every message: kind, round, sender, body, signature. Bytes only, never a pickle.

Layout: magic, version, kind, digest of the round's terms (32 bytes), length of the sender's name,
the name, length of the body, the body, and the sender's Ed25519 signature (64 bytes) over all
before it, with the body replaced by its SHA-256. The server's own messages carry no signature: the
protocol does not trust it, and the clients check what it forwards.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.privacy.secure_aggregation.keys import SIGNATURE_BYTES, Identity, verify
from fedfuse_ray.privacy.secure_aggregation.terms import RoundTerms

Buffer = bytes | memoryview

_MAGIC = b"FFSA"
_VERSION = 1
_PREFIX = struct.Struct("<4sBB32sHQ")
_LENGTH = struct.Struct("<Q")
_DOMAIN = b"fedfuse_ray secure aggregation message\0"
SERVER = ""
"""Sender of the server's messages: no institution can have an empty name."""


class Stage(StrEnum):
    """The protocol's stages, in order."""

    ADVERTISE_KEYS = "advertise_keys"
    SHARE_KEYS = "share_keys"
    MASKED_INPUT = "masked_input"
    CONSISTENCY_CHECK = "consistency_check"
    UNMASKING = "unmasking"


class Kind(IntEnum):
    """What a message is; a client's kinds are odd, the server's answers are even."""

    ADVERTISEMENT = 1
    ROSTER = 2
    ENCRYPTED_SHARES = 3
    SHARE_DELIVERY = 4
    MASKED_INPUT = 5
    SURVIVORS = 6
    CONFIRMATION = 7
    CONFIRMATIONS = 8
    UNMASKING_SHARES = 9
    PARTNERS = 11


@dataclass(frozen=True)
class Envelope:
    """A message whose frame and signature were found to be in order."""

    kind: Kind
    sender: str
    body: memoryview


def seal(
    kind: Kind,
    body: bytes,
    terms: RoundTerms,
    sender: str = SERVER,
    identity: Identity | None = None,
) -> bytes:
    """Return the message as bytes, signed when an identity is given."""
    name = sender.encode()
    header = _PREFIX.pack(_MAGIC, _VERSION, kind, terms.digest, len(name), len(body)) + name
    signature = b"" if identity is None else identity.sign(_signed(header, body))
    return b"".join((header, body, signature))


def unseal(data: Buffer, kind: Kind, terms: RoundTerms) -> Envelope:
    """Check a message and return its parts, without copying the body.

    Args:
        data: The message.
        kind: What it has to be.
        terms: The round that it has to belong to; they name the senders and their keys.

    Raises:
        ProtocolError: It is truncated, altered, of another kind or round, or its sender takes no
            part or did not sign it.
    """
    view = memoryview(data)
    try:
        magic, version, found, digest, name_length, length = _PREFIX.unpack_from(view)
        start = _PREFIX.size + name_length
        sender = bytes(view[_PREFIX.size : start]).decode()
    except (struct.error, UnicodeDecodeError):
        raise ProtocolError("a message's header can't be read") from None
    if magic != _MAGIC or version != _VERSION:
        raise ProtocolError(f"not a secure aggregation message of version {_VERSION}")
    if found != kind:
        raise ProtocolError(f"message of kind {found} where {kind.name} is due")
    if digest != terms.digest:
        raise ProtocolError(f"{kind.name} of {sender!r} belongs to another round, or other terms")
    body, signature = view[start : start + length], view[start + length :]
    if len(body) != length:
        raise ProtocolError(f"{kind.name} of {sender!r} is truncated")
    if kind % 2 == 0:
        if sender != SERVER or len(signature):
            raise ProtocolError(f"{kind.name} is not the server's message")
        return Envelope(kind, sender, body)
    public = terms.identities.get(sender)
    if public is None:
        raise ProtocolError(f"{kind.name} comes from {sender!r}, who takes no part")
    if len(signature) != SIGNATURE_BYTES or not verify(
        public, bytes(signature), _signed(bytes(view[:start]), body)
    ):
        raise ProtocolError(f"{kind.name} of {sender!r} was altered, or {sender!r} never signed it")
    return Envelope(kind, sender, body)


def unseal_all(data: Iterable[Buffer], kind: Kind, terms: RoundTerms) -> dict[str, Envelope]:
    """Check messages of one kind and return them by sender; each sender may appear once."""
    found: dict[str, Envelope] = {}
    for item in data:
        envelope = unseal(item, kind, terms)
        if envelope.sender in found:
            raise ProtocolError(f"two messages {kind.name} of {envelope.sender!r}")
        found[envelope.sender] = envelope
    return found


def parts_of_list(items: Iterable[Buffer]) -> list[Buffer]:
    """Return the items, each behind its length, not yet joined (large vectors are copied once)."""
    parts: list[Buffer] = []
    for item in items:
        parts += (_LENGTH.pack(len(item)), item)
    return parts


def parts_of_map(items: Mapping[str, Buffer]) -> list[Buffer]:
    """Return names and values, each behind its length, not yet joined."""
    return parts_of_list(part for name, value in items.items() for part in (name.encode(), value))


def write_list(items: Iterable[Buffer]) -> bytes:
    """Return the items, each behind its length."""
    return b"".join(parts_of_list(items))


def read_list(data: Buffer) -> list[memoryview]:
    """Return the items that `write_list` wrote, without copying them.

    Raises:
        ProtocolError: The lengths do not cover the data exactly.
    """
    view, items, offset = memoryview(data), [], 0
    while offset < len(view):
        if offset + _LENGTH.size > len(view):
            raise ProtocolError("a list in a message is truncated")
        (length,) = _LENGTH.unpack_from(view, offset)
        offset += _LENGTH.size
        if length > len(view) - offset:
            raise ProtocolError("a list in a message is truncated")
        items.append(view[offset : offset + length])
        offset += length
    return items


def write_map(items: Mapping[str, Buffer]) -> bytes:
    """Return names and values, in the mapping's order."""
    return b"".join(parts_of_map(items))


def read_map(data: Buffer) -> dict[str, memoryview]:
    """Return what `write_map` wrote.

    Raises:
        ProtocolError: It can't be read, or a name stands twice.
    """
    items = read_list(data)
    if len(items) % 2:
        raise ProtocolError("a table in a message lacks its last value")
    names = read_names_from(items[::2])
    if len(set(names)) != len(names):
        raise ProtocolError("a table in a message has a name twice")
    return dict(zip(names, items[1::2], strict=True))


def read_names_from(items: Iterable[memoryview]) -> tuple[str, ...]:
    """Return the items as text.

    Raises:
        ProtocolError: An item is not UTF-8.
    """
    try:
        return tuple(bytes(item).decode() for item in items)
    except UnicodeDecodeError:
        raise ProtocolError("a name in a message is not UTF-8") from None


def _signed(header: bytes, body: Buffer) -> bytes:
    return _DOMAIN + header + hashlib.sha256(body).digest()
