"""The bodies of messages, stage by stage. The server's other answers are lists of signed records.

| stage | client sends | server answers |
|---|---|---|
| 0 advertise keys | `Advertisement` | the roster: all advertisements, signed |
| 1 share keys | `EncryptedShares` | `Delivery`, what is meant for the recipient |
| 2 masked input | `MaskedInput` | the survivors' lists of partners, signed |
| 3 consistency check | `Names`, the survivors | all confirmations, signed |
| 4 unmasking | `UnmaskingShares` | - |

Each is written and read by the round's terms (see `fields`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.packing import packed_bytes
from fedfuse_ray.privacy.identities import KEY_BYTES, SIGNATURE_BYTES
from fedfuse_ray.privacy.secure_aggregation.fields import Buffer, Reader, bitmap, bitmap_bytes
from fedfuse_ray.privacy.secure_aggregation.keys import TAG_BYTES
from fedfuse_ray.privacy.secure_aggregation.shamir import SHARE_BYTES
from fedfuse_ray.privacy.secure_aggregation.terms import RoundTerms

COMMITMENT_BYTES = 16


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
        mask_key: Share of the secret behind the pairwise masks.
        seeds: Block name to the share of that block's self-mask seed.
    """

    mask_key: bytes
    seeds: Mapping[str, bytes]

    def to_bytes(self, blocks: Sequence[str]) -> bytes:
        """Return the plaintext; `blocks` are the sender's."""
        return b"".join((self.mask_key, *(self.seeds[block] for block in blocks)))

    @classmethod
    def from_bytes(cls, data: Buffer, blocks: Sequence[str]) -> Shares:
        """Read a plaintext; raises ProtocolError when it is malformed."""
        reader = Reader(data, "a set of shares")
        shares = cls(bytes(reader.take(SHARE_BYTES)), reader.table(blocks, SHARE_BYTES))
        reader.end()
        return shares


@dataclass(frozen=True)
class EncryptedShares:
    """Stage 1.

    Attributes:
        commitments: Block name to the commitment to its seed (see `round_secrets.commit`).
        ciphertexts: Recipient to `Shares`, encrypted for it alone.
    """

    commitments: Mapping[str, bytes]
    ciphertexts: Mapping[str, bytes]

    def to_bytes(self, terms: RoundTerms, sender: str) -> bytes:
        """Return the message's body."""
        return b"".join(
            (
                *(self.commitments[block] for block in terms.owned_by(sender)),
                bitmap(terms.names, self.ciphertexts),
                *(self.ciphertexts[name] for name in terms.names if name in self.ciphertexts),
            )
        )

    @classmethod
    def from_bytes(cls, data: Buffer, terms: RoundTerms, sender: str) -> EncryptedShares:
        """Read a body; raises ProtocolError when it is malformed."""
        reader = Reader(data, "a set of encrypted shares")
        commitments = reader.table(terms.owned_by(sender), COMMITMENT_BYTES)
        recipients = reader.subset(terms.names)
        ciphertexts = reader.table(recipients, _ciphertext_bytes(terms, sender))
        reader.end()
        return cls(commitments, ciphertexts)


@dataclass(frozen=True)
class Delivery:
    """The server's answer to stage 1, for one recipient.

    Attributes:
        partners: All who shared their keys, the recipient among them.
        ciphertexts: Sender to what it encrypted for the recipient; who lets it derive its shares
            sends none.
    """

    partners: tuple[str, ...]
    ciphertexts: Mapping[str, bytes]

    def to_bytes(self, terms: RoundTerms) -> bytes:
        """Return the message's body."""
        return b"".join(
            (
                bitmap(terms.names, self.partners),
                bitmap(terms.names, self.ciphertexts),
                *(self.ciphertexts[name] for name in terms.names if name in self.ciphertexts),
            )
        )

    @classmethod
    def from_bytes(cls, data: Buffer, terms: RoundTerms) -> Delivery:
        """Read a body; raises ProtocolError when it is malformed."""
        reader = Reader(data, "a delivery of shares")
        partners, senders = reader.subset(terms.names), reader.subset(terms.names)
        ciphertexts = {n: bytes(reader.take(_ciphertext_bytes(terms, n))) for n in senders}
        reader.end()
        return cls(partners, ciphertexts)


@dataclass(frozen=True)
class MaskedInput:
    """Stage 2.

    Attributes:
        partners: A signed record of `Kind.PARTNERS`: the institutions whose masks the sender used.
        blocks: Block name to the packed masked words.
    """

    partners: Buffer
    blocks: Mapping[str, Buffer]

    def to_bytes(self, terms: RoundTerms, sender: str) -> bytes:
        """Return the message's body."""
        owned = terms.owned_by(sender)
        words = (self.blocks[block] for block in owned if block in self.blocks)
        return b"".join((self.partners, bitmap(owned, self.blocks), *words))

    @classmethod
    def from_bytes(cls, data: Buffer, terms: RoundTerms, sender: str) -> MaskedInput:
        """Read a body without copying the words; raises ProtocolError when it is malformed."""
        reader = Reader(data, "a masked input")
        partners = reader.take(bitmap_bytes(len(terms.names)) + SIGNATURE_BYTES)
        blocks = {
            block: reader.take(packed_bytes(terms.blocks[block].size, terms.bits(block)))
            for block in reader.subset(terms.owned_by(sender))
        }
        reader.end()
        return cls(partners, blocks)


@dataclass(frozen=True)
class Names:
    """A list of institutions, in the federation's order: partners (2) or survivors (3)."""

    names: tuple[str, ...]

    def to_bytes(self, terms: RoundTerms) -> bytes:
        """Return the message's body."""
        return bitmap(terms.names, self.names)

    @classmethod
    def from_bytes(cls, data: Buffer, terms: RoundTerms) -> Names:
        """Read a body; raises ProtocolError when it is malformed."""
        reader = Reader(data, "a list of institutions")
        names = reader.subset(terms.names)
        reader.end()
        return cls(names)


@dataclass(frozen=True)
class UnmaskingShares:
    """Stage 4: no institution is ever named in both tables.

    Attributes:
        mask_keys: Dropped institution to the sender's share of its mask key.
        seeds: Surviving institution to the sender's shares of its seeds, by block: of its blocks
            those that enough owners survived for.

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

    def to_bytes(self, terms: RoundTerms) -> bytes:
        """Return the message's body."""
        dropped = [name for name in terms.names if name in self.mask_keys]
        survivors = [name for name in terms.names if name in self.seeds]
        due = _released(terms, survivors)
        parts = [bitmap(terms.names, dropped), bitmap(terms.names, survivors)]
        parts += [self.mask_keys[name] for name in dropped]
        parts += [self.seeds[name][block] for name in survivors for block in due[name]]
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, data: Buffer, terms: RoundTerms) -> UnmaskingShares:
        """Read a body; raises ProtocolError when it is malformed."""
        reader = Reader(data, "a set of unmasking shares")
        dropped, survivors = reader.subset(terms.names), reader.subset(terms.names)
        mask_keys = reader.table(dropped, SHARE_BYTES)
        due = _released(terms, survivors)
        seeds = {name: reader.table(due[name], SHARE_BYTES) for name in survivors}
        reader.end()
        return cls(mask_keys, seeds)


def _ciphertext_bytes(terms: RoundTerms, sender: str) -> int:
    return (1 + len(terms.owned_by(sender))) * SHARE_BYTES + TAG_BYTES


def _released(terms: RoundTerms, survivors: Sequence[str]) -> dict[str, list[str]]:
    """Return the blocks, of each survivor, whose seeds may be known."""
    summable = terms.summable(survivors)
    return {name: [b for b in terms.owned_by(name) if b in summable] for name in survivors}
