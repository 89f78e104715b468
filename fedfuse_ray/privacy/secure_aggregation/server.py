"""The server's side: it collects a stage's messages, closes the stage, and ends with sums alone.

Source: Bonawitz et al. 2017, figure 4 (see `client`). A masked vector is added to the running sums
as it arrives and not kept. The arithmetic is exact, so the order of arrival changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from fedfuse_ray.errors import ProtocolError, TooFewError
from fedfuse_ray.packing import Modular, unpack, word_dtype
from fedfuse_ray.privacy.secure_aggregation import envelope as frame
from fedfuse_ray.privacy.secure_aggregation.envelope import Kind, Stage
from fedfuse_ray.privacy.secure_aggregation.fields import Buffer
from fedfuse_ray.privacy.secure_aggregation.masking import add_streams
from fedfuse_ray.privacy.secure_aggregation.messages import (
    Advertisement,
    Delivery,
    EncryptedShares,
    MaskedInput,
    Names,
    UnmaskingShares,
)
from fedfuse_ray.privacy.secure_aggregation.sharing import derivers
from fedfuse_ray.privacy.secure_aggregation.terms import RoundTerms, unprotected_blocks
from fedfuse_ray.privacy.secure_aggregation.unmasking import Unmasking

_KINDS = {
    Stage.ADVERTISE_KEYS: Kind.ADVERTISEMENT,
    Stage.SHARE_KEYS: Kind.ENCRYPTED_SHARES,
    Stage.MASKED_INPUT: Kind.MASKED_INPUT,
    Stage.CONSISTENCY_CHECK: Kind.CONFIRMATION,
    Stage.UNMASKING: Kind.UNMASKING_SHARES,
}


@dataclass(frozen=True)
class Unmasked:
    """What a round reveals.

    Attributes:
        sums: Block name to the sum of its surviving owners' words modulo 2^k with the block's k,
            shape [size].
        owners: Block name to the owners whose words are in the sum, in the federation's order.
        withheld: Blocks whose survivors were fewer than the terms ask for; they stay masked.
        unprotected: Revealed blocks with a single owner in the sum: a sum that hides nothing.
        dropouts: Stage to the institutions that were lost in it.
    """

    sums: Mapping[str, Modular]
    owners: Mapping[str, tuple[str, ...]]
    withheld: tuple[str, ...]
    unprotected: tuple[str, ...]
    dropouts: Mapping[str, tuple[str, ...]]


class Server:
    """The server in one round.

    Call `receive` for each message of a stage, then the method that closes the stage: `roster`,
    `deliveries`, `survivors`, `confirmations`, `unmask`. A refused message changes nothing; who
    sent no acceptable message when a stage is closed has dropped out. Each of the five raises
    TooFewError when fewer are left than the threshold: the round is over and revealed nothing.
    """

    def __init__(self, terms: RoundTerms) -> None:
        self._terms = terms
        self._stage: Stage | None = Stage.ADVERTISE_KEYS
        self._expected = tuple(terms.identities)
        self._received: set[str] = set()
        self._dropouts: dict[str, tuple[str, ...]] = {}
        self._records: dict[str, bytes] = {}
        self._advertised: dict[str, Advertisement] = {}
        self._shared: dict[str, EncryptedShares] = {}
        self._partners: tuple[str, ...] = ()
        self._survivors: tuple[str, ...] = ()
        self._answers: dict[str, UnmaskingShares] = {}
        self._sums: dict[str, Modular] = {}

    @property
    def stage(self) -> Stage | None:
        """The stage whose messages are due; None after the last."""
        return self._stage

    @property
    def expected(self) -> tuple[str, ...]:
        """The institutions whose message of this stage is due, in the federation's order."""
        return self._expected

    def receive(self, data: Buffer) -> None:
        """Take one message of the stage.

        Raises:
            ProtocolError: It is altered, replayed, of another stage or round, a second one of its
                sender, or does not fit what came before.
        """
        if self._stage is None:
            raise ProtocolError("the round is over")
        message = frame.unseal(data, _KINDS[self._stage], self._terms)
        sender = message.sender
        if sender in self._received:
            raise ProtocolError(f"a second {message.kind.name} of {sender!r}")
        if sender not in self._expected:
            raise ProtocolError(f"{message.kind.name} of {sender!r}, who had dropped out before")
        match self._stage:
            case Stage.ADVERTISE_KEYS:
                self._advertised[sender] = Advertisement.from_bytes(message.body)
                self._records[sender] = bytes(message.record)
            case Stage.SHARE_KEYS:
                self._take_shares(sender, message.body)
            case Stage.MASKED_INPUT:
                self._take_masked(sender, message.body)
            case Stage.CONSISTENCY_CHECK:
                if Names.from_bytes(message.body, self._terms).names != self._survivors:
                    raise ProtocolError(f"{sender!r} confirmed another list of survivors")
                self._records[sender] = bytes(message.record)
            case Stage.UNMASKING:
                self._take_answer(sender, message.body)
        self._received.add(sender)

    def roster(self) -> bytes:
        """Close stage 0 and return the advertisements, for every remaining client."""
        self._close(Stage.ADVERTISE_KEYS, Stage.SHARE_KEYS)
        return self._broadcast(Kind.ROSTER)

    def deliveries(self) -> dict[str, bytes]:
        """Close stage 1 and return, for each remaining client, the shares encrypted for it."""
        self._close(Stage.SHARE_KEYS, Stage.MASKED_INPUT)
        self._partners = self._expected
        summable = self._terms.summable(self._partners)
        self._sums = {
            block: np.zeros(self._terms.blocks[block].size, word_dtype(self._terms.bits(block)))
            for block in summable
        }
        delivered = {}
        for recipient in self._partners:
            ciphertexts = {
                sender: self._shared[sender].ciphertexts[recipient]
                for sender in self._partners
                if recipient in self._shared[sender].ciphertexts
            }
            body = Delivery(self._partners, ciphertexts).to_bytes(self._terms)
            delivered[recipient] = frame.seal(Kind.SHARE_DELIVERY, body, self._terms)
        return delivered

    @property
    def summed(self) -> tuple[str, ...]:
        """Whose masked inputs are in the sums; empty until stage 2 is closed."""
        return tuple(self._survivors)

    def survivors(self) -> bytes:
        """Close stage 2 and return what the survivors signed of their partners."""
        self._close(Stage.MASKED_INPUT, Stage.CONSISTENCY_CHECK)
        self._survivors = self._expected
        return self._broadcast(Kind.SURVIVORS)

    def confirmations(self) -> bytes:
        """Close stage 3 and return the signatures over the list of survivors."""
        self._close(Stage.CONSISTENCY_CHECK, Stage.UNMASKING)
        return self._broadcast(Kind.CONFIRMATIONS)

    def unmask(self) -> Unmasked:
        """Close stage 4, take the masks out of the sums and return these.

        Raises:
            TooFewError: Fewer answers than the threshold.
            ProtocolError: Shares that do not fit.
        """
        self._close(Stage.UNMASKING, None)
        unmasking = Unmasking(
            terms=self._terms,
            roster=self._advertised,
            partners=self._partners,
            survivors=self._survivors,
            commitments={name: shared.commitments for name, shared in self._shared.items()},
            answers=self._answers,
        )
        sums = {}
        for block, streams in unmasking.streams():
            add_streams(self._sums[block], streams)
            mask = (1 << self._terms.bits(block)) - 1
            self._sums[block] &= self._sums[block].dtype.type(mask)
            sums[block] = self._sums[block]
        owners = {block: self._terms.owners_among(block, self._survivors) for block in sums}
        return Unmasked(
            sums=sums,
            owners=owners,
            withheld=tuple(name for name in sorted(self._terms.blocks) if name not in sums),
            unprotected=unprotected_blocks(owners),
            dropouts=self._dropouts,
        )

    def _close(self, stage: Stage, following: Stage | None) -> None:
        if self._stage is not stage:
            due = "nothing" if self._stage is None else self._stage.value
            raise ProtocolError(f"the server can't close {stage.value}: {due} is due")
        present = tuple(name for name in self._expected if name in self._received)
        self._dropouts[stage.value] = tuple(n for n in self._expected if n not in present)
        self._expected, self._received, self._stage = present, set(), following
        if len(present) < self._terms.threshold:
            self._stage = None
            raise TooFewError(
                f"{len(present)} institutions are left after {stage.value}; the threshold is"
                f" {self._terms.threshold}, so nothing is revealed"
            )

    def _broadcast(self, kind: Kind) -> bytes:
        records = {name: self._records[name] for name in self._expected}
        body = frame.write_records(records, self._terms)
        self._records = {}
        return frame.seal(kind, body, self._terms)

    def _take_shares(self, sender: str, body: Buffer) -> None:
        shared = EncryptedShares.from_bytes(body, self._terms, sender)
        derived = derivers(self._terms, self._advertised, sender)
        recipients = set(self._advertised) - {sender, *derived}
        _require_names(shared.ciphertexts, recipients, sender, "encrypted shares")
        self._shared[sender] = shared

    def _take_masked(self, sender: str, body: Buffer) -> None:
        message = MaskedInput.from_bytes(body, self._terms, sender)
        statement = frame.check_record(message.partners, Kind.PARTNERS, sender, self._terms)
        if Names.from_bytes(statement.body, self._terms).names != self._partners:
            raise ProtocolError(f"{sender!r} masked with other partners than it was given")
        blocks = [name for name in self._terms.owned_by(sender) if name in self._sums]
        _require_names(message.blocks, blocks, sender, "blocks")
        words = {
            name: unpack(data, self._terms.blocks[name].size, self._terms.bits(name))
            for name, data in message.blocks.items()
        }
        for name, masked in words.items():
            self._sums[name] += masked
        self._records[sender] = bytes(message.partners)

    def _take_answer(self, sender: str, body: Buffer) -> None:
        answer = UnmaskingShares.from_bytes(body, self._terms)
        dropped = set(self._partners) - set(self._survivors)
        _require_names(answer.mask_keys, dropped, sender, "shares of mask keys")
        _require_names(answer.seeds, self._survivors, sender, "shares of seeds")
        self._answers[sender] = answer


def _require_names(found: Iterable[str], due: Iterable[str], sender: str, what: str) -> None:
    if set(found) != set(due):
        raise ProtocolError(f"{sender!r} sent other {what} than are due")
