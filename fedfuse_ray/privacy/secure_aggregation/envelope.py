"""The frame of every message: kind, round, sender, body, signature. Bytes only, never a pickle.

Layout: version (1 byte), kind (1), the first half of the digest of the round's terms (16), the
sender's index among the institutions (2), the body, and the sender's Ed25519 signature (64). There
is no length: the body is what stands between. The server's own messages carry no signature: the
protocol does not trust it, and the clients check what it forwards.

The signature covers the header, the whole digest of the terms and the SHA-256 of the body. The half
in the header only tells early, and in words, that a message belongs elsewhere: nothing rests on it,
as a message of other terms with the same half still has no valid signature.

A list of signed messages of one kind is a bitmap of the senders and their bodies and signatures;
the reader restores each header from its own terms, so a record put in another's place, or in
another list, has no valid signature either.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.privacy.identities import SIGNATURE_BYTES, Identity, verify
from fedfuse_ray.privacy.secure_aggregation.fields import Buffer, Reader, bitmap
from fedfuse_ray.privacy.secure_aggregation.terms import MOST_INSTITUTIONS, RoundTerms

_VERSION = 2
_HEADER = struct.Struct("<BB16sH")
_DOMAIN = b"fedfuse_ray secure aggregation message 2\0"
_SERVER_INDEX = MOST_INSTITUTIONS  # one more than the last institution can have
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
    """A message whose frame and signature were found to be in order.

    Attributes:
        kind: What it is.
        sender: The institution, or `SERVER`.
        body: Without header and signature.
        record: Body and signature, as they stand in a list.
    """

    kind: Kind
    sender: str
    body: memoryview
    record: memoryview


def seal(
    kind: Kind,
    body: Buffer,
    terms: RoundTerms,
    sender: str = SERVER,
    identity: Identity | None = None,
) -> bytes:
    """Return the message as bytes, signed when an identity is given.

    Raises:
        ProtocolError: The sender takes no part.
    """
    header = _header(kind, sender, terms)
    signature = b"" if identity is None else identity.sign(_signed(header, body, terms))
    return b"".join((header, body, signature))


def sign(kind: Kind, body: Buffer, terms: RoundTerms, sender: str, identity: Identity) -> bytes:
    """Return body and signature: what `seal` gives, without the header that the reader knows."""
    return seal(kind, body, terms, sender, identity)[_HEADER.size :]


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
        version, found, digest, index = _HEADER.unpack_from(view)
    except struct.error:
        raise ProtocolError("a message's header can't be read") from None
    if version != _VERSION:
        raise ProtocolError(f"not a secure aggregation message of version {_VERSION}")
    if found != kind:
        raise ProtocolError(f"message of kind {found} where {kind.name} is due")
    if digest != _shortened(terms):
        raise ProtocolError(f"{kind.name} belongs to another round, or other terms")
    record = view[_HEADER.size :]
    if kind % 2 == 0:
        if index != _SERVER_INDEX:
            raise ProtocolError(f"{kind.name} is not the server's message")
        return Envelope(kind, SERVER, record, record)
    if index >= len(terms.names):
        raise ProtocolError(f"{kind.name} comes from number {index}, who takes no part")
    return check_record(record, kind, terms.names[index], terms)


def check_record(record: Buffer, kind: Kind, sender: str, terms: RoundTerms) -> Envelope:
    """Check a body with its signature and return its parts.

    Raises:
        ProtocolError: The sender did not sign this body as a message of this kind and round.
    """
    view = memoryview(record)
    body, signature = view[:-SIGNATURE_BYTES], view[-SIGNATURE_BYTES:]
    signed = _signed(_header(kind, sender, terms), body, terms)
    if not verify(terms.identities[sender], bytes(signature), signed):
        raise ProtocolError(f"{kind.name} of {sender!r} was altered, or {sender!r} never signed it")
    return Envelope(kind, sender, body, view)


def write_records(records: Mapping[str, Buffer], terms: RoundTerms) -> bytes:
    """Return a list of signed records of one length, each by its sender."""
    order = [name for name in terms.names if name in records]
    return b"".join((bitmap(terms.names, records), *(records[name] for name in order)))


def read_records(data: Buffer, kind: Kind, terms: RoundTerms) -> dict[str, Envelope]:
    """Check the records that `write_records` wrote; return them in the institutions' order.

    Raises:
        ProtocolError: The records do not cover the data exactly, or one is not its sender's.
    """
    reader = Reader(data, f"a list of {kind.name}")
    senders = reader.subset(terms.names)
    length = reader.left // max(len(senders), 1)
    records = {name: reader.take(length) for name in senders}
    reader.end()
    return {name: check_record(item, kind, name, terms) for name, item in records.items()}


def _header(kind: Kind, sender: str, terms: RoundTerms) -> bytes:
    if sender != SERVER and sender not in terms.points:
        raise ProtocolError(f"{sender!r} takes no part in this round")
    index = _SERVER_INDEX if sender == SERVER else terms.points[sender] - 1
    return _HEADER.pack(_VERSION, kind, _shortened(terms), index)


def _shortened(terms: RoundTerms) -> bytes:
    return terms.digest[:16]


def _signed(header: bytes, body: Buffer, terms: RoundTerms) -> bytes:
    return _DOMAIN + header + terms.digest + hashlib.sha256(body).digest()
