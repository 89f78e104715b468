"""What all parties know before a round of secure aggregation starts, and check every message by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from fedfuse_ray.errors import InputError

MODULUS_BITS = range(2, 33)
MOST_INSTITUTIONS = 2**16 - 1
"""A message names its sender by a 16-bit index, of which the last is the server's."""


@dataclass(frozen=True)
class BlockTerms:
    """One block of the model, summed over the institutions that own it.

    Attributes:
        size: Number of entries.
        owners: The institutions that send it.
        minimum_survivors: Below so many surviving owners the block's sum is withheld: no client
            gives its shares of that block's seeds, while the other blocks go on. None stands for
            two, or one for a block with a single owner. With c colluding owners ask for c + 2; with
            noise shares of K - t owners ask for K - t.
        modulus_bits: The block's sum is modulo 2^modulus_bits, from 2 to 32; None stands for the
            round's width.
    """

    size: int
    owners: tuple[str, ...]
    minimum_survivors: int | None = None
    modulus_bits: int | None = None

    @property
    def minimum(self) -> int:
        """The least number of surviving owners whose sum is revealed."""
        if self.minimum_survivors is not None:
            return self.minimum_survivors
        return min(2, len(self.owners))


@dataclass(frozen=True)
class RoundTerms:
    """The terms of one round; their digest is bound into every key, ciphertext and signature.

    Attributes:
        session: Names the run, so that a round of another run is never mistaken for this one.
        round: The round's number; no two rounds of a session may share it.
        threshold: Least number of institutions that must stay to the end. More than half of all,
            so that no two disjoint groups can answer for two different lists of survivors.
        modulus_bits: Sums are modulo 2^modulus_bits, from 2 to 32, where the block does not say
            otherwise.
        identities: Each institution's Ed25519 public key, in the federation's order.
        blocks: Block name to its terms.

    Raises:
        InputError: A value is out of range or an owner takes no part.
    """

    session: str
    round: int
    threshold: int
    modulus_bits: int
    identities: Mapping[str, bytes]
    blocks: Mapping[str, BlockTerms]

    def __post_init__(self) -> None:
        count = len(self.identities)
        if not 2 <= count <= MOST_INSTITUTIONS:
            raise InputError(
                "institutions", count, f"secure aggregation takes 2 to {MOST_INSTITUTIONS}"
            )
        if "" in self.identities:
            raise InputError("institutions", "''", "an institution needs a name")
        least = minimum_threshold(count)
        if not least <= self.threshold <= count:
            raise InputError(
                "threshold", self.threshold, f"must be from {least} to {count} for {count} members"
            )
        if self.modulus_bits not in MODULUS_BITS:
            raise InputError("modulus_bits", self.modulus_bits, "must be from 2 to 32")
        if self.round < 0:
            raise InputError("round", self.round, "must not be negative")
        if len(set(self.identities.values())) != count:
            raise InputError("identities", "a key twice", "give each institution its own identity")
        for name, block in self.blocks.items():
            _check_block(name, block, self.identities)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over all terms, in canonical form (32 bytes)."""
        terms = {
            "session": self.session,
            "round": self.round,
            "threshold": self.threshold,
            "modulus_bits": self.modulus_bits,
            "identities": [[name, key.hex()] for name, key in self.identities.items()],
            "blocks": [
                [name, block.size, list(block.owners), block.minimum, self.bits(name)]
                for name, block in sorted(self.blocks.items())
            ],
        }
        text = json.dumps(terms, separators=(",", ":"))
        return hashlib.sha256(b"fedfuse_ray secure aggregation 2\0" + text.encode()).digest()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The institutions in the federation's order, which bitmaps and headers refer to."""
        return tuple(self.identities)

    @cached_property
    def points(self) -> dict[str, int]:
        """Each institution's point in the secret sharing; also the order that signs masks."""
        return {name: index + 1 for index, name in enumerate(self.identities)}

    def bits(self, block: str) -> int:
        """Return the width of the block's modulus."""
        bits = self.blocks[block].modulus_bits
        return self.modulus_bits if bits is None else bits

    def owned_by(self, institution: str) -> tuple[str, ...]:
        """Return the names of the institution's blocks, sorted."""
        return self._owned[institution]

    @cached_property
    def _owned(self) -> dict[str, tuple[str, ...]]:
        blocks = sorted(self.blocks.items())
        return {
            name: tuple(b for b, block in blocks if name in block.owners)
            for name in self.identities
        }

    def owners_among(self, block: str, present: Collection[str]) -> tuple[str, ...]:
        """Return the block's owners that are present, in the federation's order."""
        owners = self.blocks[block].owners
        return tuple(n for n in self.identities if n in owners and n in present)

    def summable(self, present: Collection[str]) -> tuple[str, ...]:
        """Return the blocks with enough owners present for their sum to be revealed, sorted."""
        return tuple(
            name
            for name, block in sorted(self.blocks.items())
            if len(self.owners_among(name, present)) >= block.minimum
        )


def minimum_threshold(institutions: int, colluding: int = 0) -> int:
    """Return the least safe threshold against a malicious server with colluding institutions.

    To get both kinds of shares of one institution a server needs 2t answers, t for each of two
    lists of survivors. Honest institutions answer once, colluding ones twice: n + c answers in all,
    hence 2t > n + c. Source: Bonawitz et al. 2017, section 6 (active adversaries).
    """
    return (institutions + colluding) // 2 + 1


def unprotected_blocks(owners: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """Return the blocks, sorted, that a sum does not hide: those with a single owner.

    Pass the planned owners before a run, or a round's surviving owners after it. Such a block's
    "sum" is its owner's own update: only the noise that this owner adds protects it.
    """
    return tuple(sorted(name for name, members in owners.items() if len(set(members)) == 1))


def _check_block(name: str, block: BlockTerms, identities: Collection[str]) -> None:
    field = f"blocks.{name}"
    if block.size < 1:
        raise InputError(f"{field}.size", block.size, "must be at least 1")
    if not block.owners or len(set(block.owners)) != len(block.owners):
        raise InputError(f"{field}.owners", block.owners, "name each owner once, and at least one")
    strangers = sorted(set(block.owners) - set(identities))
    if strangers:
        raise InputError(f"{field}.owners", strangers, "owners must be among the institutions")
    if block.modulus_bits is not None and block.modulus_bits not in MODULUS_BITS:
        raise InputError(f"{field}.modulus_bits", block.modulus_bits, "must be from 2 to 32")
    if not 1 <= block.minimum <= len(block.owners):
        raise InputError(
            f"{field}.minimum_survivors", block.minimum, f"must be 1 to {len(block.owners)}"
        )
