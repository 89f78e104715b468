"""What one institution keeps secret for one round, and the pure operations on it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.packing import Modular, pack
from fedfuse_ray.privacy.secure_aggregation.envelope import Buffer
from fedfuse_ray.privacy.secure_aggregation.keys import (
    KEY_BYTES,
    KeyPair,
    Randomness,
    ShareChannel,
)
from fedfuse_ray.privacy.secure_aggregation.masking import (
    add_streams,
    pair_sign,
    pair_stream,
    self_stream,
)
from fedfuse_ray.privacy.secure_aggregation.messages import Advertisement, Shares
from fedfuse_ray.privacy.secure_aggregation.shamir import split
from fedfuse_ray.privacy.secure_aggregation.terms import RoundTerms


@dataclass(frozen=True)
class RoundSecrets:
    """Key pairs and seeds that live for one round.

    Attributes:
        terms: The round's terms.
        owner: The institution.
        cipher_keys: Key pair under which shares are encrypted.
        mask_keys: Key pair behind the pairwise masks; its private half is secret-shared.
        seeds: Owned block to the seed of its self mask, each secret-shared.
    """

    terms: RoundTerms
    owner: str
    cipher_keys: KeyPair = field(repr=False)
    mask_keys: KeyPair = field(repr=False)
    seeds: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def draw(cls, terms: RoundTerms, owner: str, randomness: Randomness) -> RoundSecrets:
        """Draw fresh secrets."""
        return cls(
            terms=terms,
            owner=owner,
            cipher_keys=KeyPair(randomness(KEY_BYTES)),
            mask_keys=KeyPair(randomness(KEY_BYTES)),
            seeds={block: randomness(KEY_BYTES) for block in terms.owned_by(owner)},
        )

    def advertisement(self) -> Advertisement:
        """Return the public halves."""
        return Advertisement(self.cipher_keys.public, self.mask_keys.public)

    def commitments(self) -> dict[str, bytes]:
        """Return the commitment to each seed, by block."""
        return {
            block: commit(seed, self.terms.digest, self.owner, block)
            for block, seed in self.seeds.items()
        }

    def agree(self, roster: Mapping[str, Advertisement]) -> dict[str, bytes]:
        """Return the secret behind the encryption of shares, for each peer in the roster."""
        return {
            name: self.cipher_keys.agree(keys.cipher_key)
            for name, keys in roster.items()
            if name != self.owner
        }

    def split(self, agreed: Mapping[str, bytes], randomness: Randomness) -> dict[str, Shares]:
        """Share the mask key and every seed among the owner and its peers.

        Args:
            agreed: What `agree` gave; names the peers.
            randomness: Source of the polynomials.
        """
        points = {name: self.terms.points[name] for name in (self.owner, *agreed)}
        where, threshold = tuple(points.values()), self.terms.threshold
        of_key = split(self.mask_keys.private, threshold, where, randomness)
        of_seeds = {
            block: split(seed, threshold, where, randomness) for block, seed in self.seeds.items()
        }
        return {
            name: Shares(of_key[point], {block: s[point] for block, s in of_seeds.items()})
            for name, point in points.items()
        }

    def encrypt(self, peer: str, agreed: bytes, shares: Shares, randomness: Randomness) -> bytes:
        """Return a peer's shares as only that peer can read them."""
        channel = ShareChannel.between(agreed, self.terms.digest, self.owner, peer)
        return channel.encrypt(shares.to_bytes(), randomness)

    def decrypt(self, peer: str, agreed: bytes, ciphertext: bytes) -> Shares:
        """Return the shares that a peer encrypted for the owner.

        Raises:
            ProtocolError: They were altered, or are of other blocks than the peer owns.
        """
        channel = ShareChannel.between(agreed, self.terms.digest, peer, self.owner)
        shares = Shares.from_bytes(channel.decrypt(ciphertext))
        if set(shares.seeds) != set(self.terms.owned_by(peer)):
            raise ProtocolError(f"{peer!r} shared seeds of other blocks than it owns")
        return shares

    def mask(
        self, inputs: Mapping[str, Modular], partners: Mapping[str, Advertisement]
    ) -> dict[str, Buffer]:
        """Return the packed masked words of each block that can still be summed.

        Args:
            inputs: Owned block to its words; not altered.
            partners: The institutions that shared their keys, the owner among them.
        """
        terms, own = self.terms, self.terms.points[self.owner]
        pairs: dict[str, bytes] = {}
        masked: dict[str, Buffer] = {}
        for block in terms.summable(partners):
            if block not in self.seeds:
                continue
            streams = [self_stream(self.seeds[block], terms.digest, self.owner, block)]
            for peer in terms.owners_among(block, partners):
                if peer != self.owner:
                    if peer not in pairs:
                        pairs[peer] = self.mask_keys.agree(partners[peer].mask_key)
                    sign = pair_sign(own, terms.points[peer])
                    streams.append(pair_stream(pairs[peer], terms.digest, block, sign))
            words = inputs[block].copy()
            add_streams(words, streams)
            masked[block] = pack(words, terms.modulus_bits)
        return masked


def commit(seed: bytes, terms: bytes, owner: str, block: str) -> bytes:
    """Return the SHA-256 commitment of a block's seed: hiding, as a seed has 256 random bits."""
    label = hashlib.sha256(repr((owner, block)).encode()).digest()
    return hashlib.sha256(b"seed\0" + terms + label + seed).digest()
