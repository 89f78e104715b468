"""The bodies of the clients' messages, stage by stage. The server's are plain lists of these.

| stage | client sends | server answers |
|---|---|---|
| 0 advertise keys | `Advertisement` | the roster: all advertisements, as sealed |
| 1 share keys | `EncryptedShares` | those meant for the recipient, by sender |
| 2 masked input | `MaskedInput` | the survivors' `Partners`, as sealed |
| 3 consistency check | `Names`, the survivors | all confirmations, as sealed |
| 4 unmasking | `UnmaskingShares` | - |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.privacy.secure_aggregation.envelope import (
    Buffer,
    parts_of_list,
    parts_of_map,
    read_list,
    read_map,
    read_names_from,
    write_list,
    write_map,
)
from fedfuse_ray.privacy.secure_aggregation.keys import KEY_BYTES


@dataclass(frozen=True)
class Advertisement:
    """Stage 0: a round's two public keys, one to encrypt shares and one to agree on masks."""

    cipher_key: bytes
    mask_key: bytes

    def to_bytes(self) -> bytes:
        """Return the message's body."""
        return self.cipher_key + self.mask_key

    @classmethod
    def from_bytes(cls, data: Buffer) -> Advertisement:
        """Read a body; raises ProtocolError when it is malformed."""
        if len(data) != 2 * KEY_BYTES:
            raise ProtocolError("an advertisement must hold two keys")
        return cls(bytes(data[:KEY_BYTES]), bytes(data[KEY_BYTES:]))


@dataclass(frozen=True)
class Shares:
    """One sender's shares for one recipient: the plaintext of a stage 1 ciphertext.

    Attributes:
        mask_key: Share of the private key behind the pairwise masks.
        seeds: Block name to the share of that block's self-mask seed.
    """

    mask_key: bytes
    seeds: Mapping[str, bytes]

    def to_bytes(self) -> bytes:
        """Return the plaintext."""
        return write_list([self.mask_key, write_map(self.seeds)])

    @classmethod
    def from_bytes(cls, data: Buffer) -> Shares:
        """Read a plaintext; raises ProtocolError when it is malformed."""
        mask_key, seeds = _two(data)
        return cls(bytes(mask_key), _owned(seeds))


@dataclass(frozen=True)
class EncryptedShares:
    """Stage 1.

    Attributes:
        commitments: Block name to the SHA-256 commitment of its seed, by which the server detects
            altered shares. A seed has 256 random bits, so the digest says nothing about it.
        ciphertexts: Recipient to `Shares`, encrypted for it alone.
    """

    commitments: Mapping[str, bytes]
    ciphertexts: Mapping[str, bytes]

    def to_bytes(self) -> bytes:
        """Return the message's body."""
        return write_list([write_map(self.commitments), write_map(self.ciphertexts)])

    @classmethod
    def from_bytes(cls, data: Buffer) -> EncryptedShares:
        """Read a body; raises ProtocolError when it is malformed."""
        commitments, ciphertexts = _two(data)
        return cls(_owned(commitments), _owned(ciphertexts))


@dataclass(frozen=True)
class MaskedInput:
    """Stage 2.

    Attributes:
        partners: A sealed `Partners` message: the institutions whose masks the sender used.
        blocks: Block name to the packed masked words.
    """

    partners: Buffer
    blocks: Mapping[str, Buffer]

    def to_bytes(self) -> bytes:
        """Return the message's body."""
        table = parts_of_map(self.blocks)
        length = sum(len(part) for part in table).to_bytes(8, "little")
        return b"".join((*parts_of_list([self.partners]), length, *table))

    @classmethod
    def from_bytes(cls, data: Buffer) -> MaskedInput:
        """Read a body without copying the words; raises ProtocolError when it is malformed."""
        partners, blocks = _two(data)
        return cls(partners, read_map(blocks))


@dataclass(frozen=True)
class Names:
    """A list of institutions, in the federation's order: partners (2) or survivors (3)."""

    names: tuple[str, ...]

    def to_bytes(self) -> bytes:
        """Return the message's body."""
        return write_list([name.encode() for name in self.names])

    @classmethod
    def from_bytes(cls, data: Buffer) -> Names:
        """Read a body; raises ProtocolError when it is malformed."""
        return cls(read_names_from(read_list(data)))


@dataclass(frozen=True)
class UnmaskingShares:
    """Stage 4: no institution is ever named in both tables.

    Attributes:
        mask_keys: Dropped institution to the sender's share of its mask key.
        seeds: Surviving institution to the sender's shares of its seeds, by block.

    Raises:
        ProtocolError: An institution stands in both: with both kinds of shares its own vector
            could be unmasked.
    """

    mask_keys: Mapping[str, bytes]
    seeds: Mapping[str, Mapping[str, bytes]]

    def __post_init__(self) -> None:
        both = sorted(set(self.mask_keys) & set(self.seeds))
        if both:
            raise ProtocolError(f"shares of both secrets of {', '.join(both)} must never be given")

    def to_bytes(self) -> bytes:
        """Return the message's body."""
        seeds = {name: write_map(blocks) for name, blocks in self.seeds.items()}
        return write_list([write_map(self.mask_keys), write_map(seeds)])

    @classmethod
    def from_bytes(cls, data: Buffer) -> UnmaskingShares:
        """Read a body; raises ProtocolError when it is malformed."""
        mask_keys, seeds = _two(data)
        return cls(
            _owned(mask_keys), {name: _owned(blocks) for name, blocks in read_map(seeds).items()}
        )


def _two(data: Buffer) -> tuple[memoryview, memoryview]:
    items = read_list(data)
    if len(items) != 2:
        raise ProtocolError(f"a message of {len(items)} parts where 2 are due")
    return items[0], items[1]


def _owned(data: Buffer) -> dict[str, bytes]:
    """Read a table of short values into memory of its own."""
    return {name: bytes(value) for name, value in read_map(data).items()}
