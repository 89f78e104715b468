"""What one institution keeps secret for one round, and the pure operations on it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.packing import Modular, pack
from fedfuse_ray.privacy.identities import KEY_BYTES, ByteSource
from fedfuse_ray.privacy.secure_aggregation import masking
from fedfuse_ray.privacy.secure_aggregation.fields import Buffer
from fedfuse_ray.privacy.secure_aggregation.keys import KeyPair, ShareChannel
from fedfuse_ray.privacy.secure_aggregation.messages import COMMITMENT_BYTES, Advertisement, Shares
from fedfuse_ray.privacy.secure_aggregation.shamir import SECRET_BYTES, complete
from fedfuse_ray.privacy.secure_aggregation.sharing import derived_shares, derivers
from fedfuse_ray.privacy.secure_aggregation.terms import RoundTerms


@dataclass(frozen=True)
class RoundSecrets:
    """Key pairs and seeds that live for one round.

    Attributes:
        terms: The round's terms.
        owner: The institution.
        cipher_keys: Key pair under which shares are encrypted or derived.
        mask_secret: 16 bytes, secret-shared, from which `mask_keys` are derived.
        seeds: Owned block to the 16-byte seed of its self mask, each secret-shared.
    """

    terms: RoundTerms
    owner: str
    cipher_keys: KeyPair = field(repr=False)
    mask_secret: bytes = field(repr=False)
    seeds: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def draw(cls, terms: RoundTerms, owner: str, randomness: ByteSource) -> RoundSecrets:
        """Draw fresh secrets."""
        return cls(
            terms=terms,
            owner=owner,
            cipher_keys=KeyPair(randomness(KEY_BYTES)),
            mask_secret=randomness(SECRET_BYTES),
            seeds={block: randomness(SECRET_BYTES) for block in terms.owned_by(owner)},
        )

    @cached_property
    def mask_keys(self) -> KeyPair:
        """The key pair behind the pairwise masks."""
        return KeyPair.of_secret(self.mask_secret, self.terms.digest, self.owner)

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

    def split(self, agreed: Mapping[str, bytes]) -> dict[str, Shares]:
        """Return the shares of the mask secret and of every seed that can't be derived.

        They are the owner's own, and those of each peer, named by what `agree` gave, that has to
        be sent them.
        """
        points, roster = self.terms.points, (self.owner, *agreed)
        derived = {
            points[peer]: derived_shares(agreed[peer], self.terms, self.owner, peer)
            for peer in derivers(self.terms, roster, self.owner)
        }
        rest = {name: points[name] for name in roster if points[name] not in derived}
        where = tuple(rest.values())
        of_key = complete(self.mask_secret, {p: s.mask_key for p, s in derived.items()}, where)
        of_seeds = {
            block: complete(seed, {p: s.seeds[block] for p, s in derived.items()}, where)
            for block, seed in self.seeds.items()
        }
        return {
            name: Shares(of_key[point], {block: s[point] for block, s in of_seeds.items()})
            for name, point in rest.items()
        }

    def encrypt(self, peer: str, agreed: bytes, shares: Shares) -> bytes:
        """Return a peer's shares as only that peer can read them; once for each peer."""
        channel = ShareChannel.between(agreed, self.terms.digest, self.owner, peer)
        return channel.encrypt(shares.to_bytes(self.terms.owned_by(self.owner)))

    def collect(
        self, agreed: Mapping[str, bytes], senders: Mapping[str, bytes | None]
    ) -> dict[str, Shares]:
        """Return the peers' shares for the owner, derived or decrypted.

        The senders are the peers that shared their keys, with what each encrypted for the owner.

        Raises:
            ProtocolError: A ciphertext is missing, not due, or was altered, or a sender is no peer.
        """
        found, roster = {}, (self.owner, *agreed)
        for sender, ciphertext in senders.items():
            if sender not in agreed:
                raise ProtocolError(f"shares of {sender!r}, who is not among the advertised peers")
            derives = self.owner in derivers(self.terms, roster, sender)
            if derives != (ciphertext is None):
                how = "are derived, not sent" if derives else "have to be sent"
                raise ProtocolError(f"the shares of {sender!r} for {self.owner!r} {how}")
            if ciphertext is None:
                found[sender] = derived_shares(agreed[sender], self.terms, sender, self.owner)
                continue
            channel = ShareChannel.between(agreed[sender], self.terms.digest, sender, self.owner)
            plain = channel.decrypt(ciphertext)
            found[sender] = Shares.from_bytes(plain, self.terms.owned_by(sender))
        return found

    def mask(
        self, inputs: Mapping[str, Modular], partners: Mapping[str, Advertisement]
    ) -> dict[str, Buffer]:
        """Return the packed masked words of each block that can still be summed.

        Inputs are not altered; the owner is among the partners, all who shared their keys.
        """
        terms, point = self.terms, self.terms.points[self.owner]
        pairs: dict[str, bytes] = {}
        masked: dict[str, Buffer] = {}
        for block in terms.summable(partners):
            if block not in self.seeds:
                continue
            streams = [masking.self_stream(self.seeds[block], terms.digest, self.owner, block)]
            for peer in terms.owners_among(block, partners):
                if peer != self.owner:
                    if peer not in pairs:
                        pairs[peer] = self.mask_keys.agree(partners[peer].mask_key)
                    sign = masking.pair_sign(point, terms.points[peer])
                    streams.append(masking.pair_stream(pairs[peer], terms.digest, block, sign))
            words = inputs[block].copy()
            masking.add_streams(words, streams)
            masked[block] = pack(words, terms.bits(block))
        return masked


def commit(seed: bytes, terms: bytes, owner: str, block: str) -> bytes:
    """Return the commitment to a block's seed, by which the server detects altered shares.

    Args:
        seed: The block's seed, 16 bytes.
        terms: Digest of the round's terms.
        owner: Whose seed it is.
        block: The block's name.

    Returns:
        The first 16 bytes of SHA-256 over all of these.

    Formal guarantees:
        Hiding, with SHA-256 as a random oracle: a seed has 128 random bits, so finding it takes as
        long as finding the AES-128 key that it gives; round, owner and block go in, so trials serve
        one seed only. Binding against whoever alters shares: the seed is fixed by then, and another
        with its commitment is a second preimage of 128 bits. A collision, 2^64 steps, only helps
        the owner that draws the seed, and it gains by it no more than by masking another vector.
    """
    label = hashlib.sha256(repr((owner, block)).encode()).digest()
    return hashlib.sha256(b"seed\0" + terms + label + seed).digest()[:COMMITMENT_BYTES]
