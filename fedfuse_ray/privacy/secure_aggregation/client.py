"""An institution's side of the protocol: five steps in order, each taken once.

Source: Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning", CCS
2017, figure 4, with the consistency check (the variant against active adversaries). What is added
to it, because sums run block by block over different owners:

- A pair masks the blocks that both own, each with its own stream; one key agreement serves them
  all.
- Every block has a self-mask seed of its own, so that the sum of a block with too few survivors is
  withheld while the others are revealed.
- A threshold less one of the shares of each secret is derived on both sides and not sent.
- Every survivor signs whose masks it used, and all must have used the same institutions'. Without
  it a server could show one institution a list without the other owners of a block.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

from fedfuse_ray.errors import InputError, ProtocolError
from fedfuse_ray.packing import Modular, word_dtype
from fedfuse_ray.privacy.identities import ByteSource, Identity
from fedfuse_ray.privacy.secure_aggregation import envelope as frame
from fedfuse_ray.privacy.secure_aggregation.envelope import Kind, Stage
from fedfuse_ray.privacy.secure_aggregation.fields import Buffer
from fedfuse_ray.privacy.secure_aggregation.messages import (
    Advertisement,
    Delivery,
    EncryptedShares,
    MaskedInput,
    Names,
    Shares,
    UnmaskingShares,
)
from fedfuse_ray.privacy.secure_aggregation.round_secrets import RoundSecrets
from fedfuse_ray.privacy.secure_aggregation.terms import RoundTerms


class Client:
    """One institution in one round. After any ProtocolError it takes no further step.

    Args:
        terms: The round's terms, from the client's own configuration and never from the server.
        name: The institution.
        identity: Its signing key; the public half is in the terms.
        randomness: Source of keys and seeds, of this round and attempt alone.

    Formal guarantees:
        Against a server that acts maliciously together with c institutions, with 2 * threshold > n
        + c and a block's minimum_survivors >= c + 2, nobody learns more about the honest owners'
        inputs to the block than their sum, under the usual assumptions (CDH on Curve25519, AES as a
        pseudo-random permutation, HKDF as a random oracle, unforgeable Ed25519). The sum itself is
        protected only by the noise in it. A block with one owner is not hidden at all.
    """

    def __init__(
        self,
        terms: RoundTerms,
        name: str,
        identity: Identity,
        randomness: ByteSource = os.urandom,
    ) -> None:
        if terms.identities.get(name) != identity.public:
            raise InputError(
                "institution", name, "its identity is not the one in the round's terms"
            )
        self._terms, self._name, self._identity = terms, name, identity
        self._next: Stage | None = Stage.ADVERTISE_KEYS
        self._secrets = RoundSecrets.draw(terms, name, randomness)
        self._roster: dict[str, Advertisement] = {}
        self._agreed: dict[str, bytes] = {}
        self._shares: dict[str, Shares] = {}
        self._partners: tuple[str, ...] = ()
        self._survivors: tuple[str, ...] = ()

    def advertise(self) -> bytes:
        """Stage 0: return the signed public keys of this round."""
        self._enter(Stage.ADVERTISE_KEYS)
        body = self._secrets.advertisement().to_bytes()
        return self._leave(Stage.SHARE_KEYS, Kind.ADVERTISEMENT, body)

    def share_keys(self, roster: Buffer) -> bytes:
        """Stage 1: return shares of the mask key and of the seeds, encrypted for their holders.

        Raises:
            ProtocolError: Fewer advertisements than the threshold, one that its sender did not
                sign, a key used twice, or another one in this client's name.
        """
        self._enter(Stage.SHARE_KEYS)
        body = frame.unseal(roster, Kind.ROSTER, self._terms).body
        signed = frame.read_records(body, Kind.ADVERTISEMENT, self._terms)
        found = {name: Advertisement.from_bytes(item.body) for name, item in signed.items()}
        self._require(found, "advertised keys")
        if found[self._name] != self._secrets.advertisement():
            raise ProtocolError(f"the roster holds other keys of {self._name} than it advertised")
        keys = [key for item in found.values() for key in (item.cipher_key, item.mask_key)]
        if len(set(keys)) != len(keys):
            raise ProtocolError("a public key stands twice in the roster")
        self._roster = found
        self._agreed = self._secrets.agree(self._roster)
        shares = self._secrets.split(self._agreed)
        self._shares[self._name] = shares.pop(self._name)
        ciphertexts = {
            peer: self._secrets.encrypt(peer, self._agreed[peer], item)
            for peer, item in shares.items()
        }
        message = EncryptedShares(self._secrets.commitments(), ciphertexts)
        body_out = message.to_bytes(self._terms, self._name)
        return self._leave(Stage.MASKED_INPUT, Kind.ENCRYPTED_SHARES, body_out)

    def mask(self, delivery: Buffer, inputs: Mapping[str, Modular]) -> bytes:
        """Stage 2: return the masked vectors.

        Args:
            delivery: What the server forwards of the peers' encrypted shares.
            inputs: Each owned block's words, modulo 2^k with the block's k, shape [size]. They are
                not altered. A block that has already lost too many owners is not sent.

        Raises:
            ProtocolError: Fewer senders than the threshold, or shares that can't be decrypted or
                are missing.
            InputError: The inputs are not the institution's blocks.
        """
        self._check_inputs(inputs)
        self._enter(Stage.MASKED_INPUT)
        body = frame.unseal(delivery, Kind.SHARE_DELIVERY, self._terms).body
        delivery_in = Delivery.from_bytes(body, self._terms)
        self._require(delivery_in.partners, "shared their keys")
        self._partners = delivery_in.partners
        senders = {n: delivery_in.ciphertexts.get(n) for n in self._partners if n != self._name}
        if not set(delivery_in.ciphertexts) <= set(senders):
            raise ProtocolError("encrypted shares of institutions that did not share their keys")
        self._shares |= self._secrets.collect(self._agreed, senders)
        blocks = self._secrets.mask(inputs, {name: self._roster[name] for name in self._partners})
        names = Names(self._partners).to_bytes(self._terms)
        partners = frame.sign(Kind.PARTNERS, names, self._terms, self._name, self._identity)
        message = MaskedInput(partners, blocks).to_bytes(self._terms, self._name)
        return self._leave(Stage.CONSISTENCY_CHECK, Kind.MASKED_INPUT, message)

    @property
    def survivors(self) -> tuple[str, ...]:
        """Whom this client has confirmed; empty before."""
        return self._survivors

    def confirm(self, survivors: Buffer) -> bytes:
        """Stage 3: return the signature over the list of survivors.

        Raises:
            ProtocolError: Fewer survivors than the threshold, this client is not among them, or one
                of them did not mask with the same partners.
        """
        self._enter(Stage.CONSISTENCY_CHECK)
        body = frame.unseal(survivors, Kind.SURVIVORS, self._terms).body
        statements = frame.read_records(body, Kind.PARTNERS, self._terms)
        self._require(statements, "sent a masked input")
        for name, statement in statements.items():
            if name not in self._partners:
                raise ProtocolError(f"{name!r} survived without having shared its keys")
            if Names.from_bytes(statement.body, self._terms).names != self._partners:
                raise ProtocolError(f"{name!r} was shown other partners than {self._name!r}")
        self._survivors = tuple(name for name in self._partners if name in statements)
        body_out = Names(self._survivors).to_bytes(self._terms)
        return self._leave(Stage.UNMASKING, Kind.CONFIRMATION, body_out)

    def unmask(self, confirmations: Buffer) -> bytes:
        """Stage 4: return shares of the survivors' seeds and of the dropped ones' mask keys.

        Raises:
            ProtocolError: Fewer confirmations than the threshold, or one of another list.
        """
        self._enter(Stage.UNMASKING)
        body = frame.unseal(confirmations, Kind.CONFIRMATIONS, self._terms).body
        confirmed = frame.read_records(body, Kind.CONFIRMATION, self._terms)
        self._require(confirmed, "confirmed the survivors")
        for name, item in confirmed.items():
            if name not in self._survivors:
                raise ProtocolError(f"{name!r} confirmed survivors without being one")
            if Names.from_bytes(item.body, self._terms).names != self._survivors:
                raise ProtocolError(f"{name!r} confirmed other survivors than {self._name!r}")
        released = self._terms.summable(self._survivors)
        mask_keys = {
            name: self._shares[name].mask_key
            for name in self._partners
            if name not in self._survivors
        }
        seeds = {
            name: {b: s for b, s in self._shares[name].seeds.items() if b in released}
            for name in self._survivors
        }
        body_out = UnmaskingShares(mask_keys, seeds).to_bytes(self._terms)
        return self._leave(None, Kind.UNMASKING_SHARES, body_out)

    def _enter(self, stage: Stage) -> None:
        """Take up a step; until it ends well no other is possible."""
        if self._next is not stage:
            due = "nothing more" if self._next is None else self._next.value
            raise ProtocolError(f"{self._name}: {stage.value} where {due} is due")
        self._next = None

    def _leave(self, following: Stage | None, kind: Kind, body: bytes) -> bytes:
        message = frame.seal(kind, body, self._terms, self._name, self._identity)
        self._next = following
        if following is None:
            self._agreed, self._shares = {}, {}
            del self._secrets  # no later request can be answered
        return message

    def _require(self, present: Collection[str], did: str) -> None:
        """Refuse below the threshold, and when this client itself is missing."""
        if self._name not in present:
            raise ProtocolError(f"{self._name} is not among those who {did}")
        if len(present) < self._terms.threshold:
            raise ProtocolError(
                f"only {len(present)} institutions {did}; the threshold is {self._terms.threshold}"
            )

    def _check_inputs(self, inputs: Mapping[str, Modular]) -> None:
        owned = self._terms.owned_by(self._name)
        if tuple(sorted(inputs)) != owned:
            raise InputError("inputs", sorted(inputs), f"must be the blocks {', '.join(owned)}")
        for block, words in inputs.items():
            size, bits = self._terms.blocks[block].size, self._terms.bits(block)
            dtype = word_dtype(bits)
            if words.shape != (size,) or words.dtype != dtype:
                found = f"{words.dtype}{list(words.shape)}"
                raise InputError(f"inputs.{block}", found, f"must be {dtype}[{size}]")
            if int(words.max()) >> bits:
                raise InputError(f"inputs.{block}", words.max(), f"must be below 2^{bits}")
