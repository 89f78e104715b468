"""Secure rounds of `tiny`, taken step by step, so that a test can be a server that begins anew."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.federation.checkpoints.checkpoint import Checkpoint
from fedfuse_ray.federation.checkpoints.promise import Memory
from fedfuse_ray.federation.institution.institution import Institution, NetCache
from fedfuse_ray.federation.messages.downlink import Broadcast
from fedfuse_ray.federation.modes.exchange import Answer, Turn
from fedfuse_ray.federation.modes.masked import MaskedGathering, MaskedStep, Revealed
from fedfuse_ray.federation.modes.session import round_terms
from fedfuse_ray.federation.modes.sides import InstitutionSide
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.plan.transfer import first_weights
from fedfuse_ray.federation.server.server import ParameterServer
from fedfuse_ray.packing import unpack
from fedfuse_ray.privacy.secure_aggregation import RoundTerms
from fedfuse_ray.privacy.secure_aggregation import envelope as frame
from fedfuse_ray.privacy.secure_aggregation.envelope import Kind
from fedfuse_ray.privacy.secure_aggregation.keys import KeyPair
from fedfuse_ray.privacy.secure_aggregation.masking import (
    add_streams,
    pair_sign,
    pair_stream,
    self_stream,
)
from fedfuse_ray.privacy.secure_aggregation.messages import (
    Advertisement,
    MaskedInput,
    UnmaskingShares,
)
from fedfuse_ray.privacy.secure_aggregation.shamir import combine
from tests.support.federations import dataset_of

KINDS = {
    MaskedStep.ADVERTISE: Kind.ADVERTISEMENT,
    MaskedStep.SHARE_KEYS: Kind.ENCRYPTED_SHARES,
    MaskedStep.MASK: Kind.MASKED_INPUT,
    MaskedStep.CONFIRM: Kind.CONFIRMATION,
    MaskedStep.UNMASK: Kind.UNMASKING_SHARES,
}


@dataclass
class Attempt:
    """What crossed the wire in one attempt of a round.

    Attributes:
        terms: The attempt's terms.
        messages: Step to sender to message.
        revealed: The sums, once it has ended.
    """

    terms: RoundTerms
    messages: dict[MaskedStep, dict[str, bytes]] = field(default_factory=dict)
    revealed: Revealed | None = None

    def body(self, step: MaskedStep, who: str) -> memoryview:
        """Return the body of a message."""
        return frame.unseal(self.messages[step][who], KINDS[step], self.terms).body

    def keys(self, who: str) -> Advertisement:
        """Return the public keys that somebody advertised."""
        return Advertisement.from_bytes(self.body(MaskedStep.ADVERTISE, who))

    def masked(self, who: str, block: str) -> npt.NDArray[np.unsignedinteger]:
        """Return the masked words that somebody sent of a block."""
        found = MaskedInput.from_bytes(self.body(MaskedStep.MASK, who), self.terms, who)
        return unpack(found.blocks[block], self.terms.blocks[block].size, self.terms.bits(block))

    def shares(self) -> dict[str, UnmaskingShares]:
        """Return what members revealed at the end."""
        return {
            who: UnmaskingShares.from_bytes(self.body(MaskedStep.UNMASK, who), self.terms)
            for who in self.messages[MaskedStep.UNMASK]
        }


class Federation:
    """The first round of a federation, begun as often as a test wants."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        nets, data = NetCache(plan), dataset_of(plan.experiment)
        self.sides = [InstitutionSide(Institution(plan, p, data, nets)) for p in plan.participants]
        self.server = ParameterServer(plan, Checkpoint(0, first_weights(plan.spec)))
        self._attempts = itertools.count()

    def forget(self) -> None:
        """Let the institutions forget what they took part in and confirmed."""
        for side in self.sides:
            side.institution.memory = Memory()

    def broadcast(self, **changes: object) -> Broadcast:
        """Return the first broadcast of a new attempt, with some of it changed."""
        begun = self.server.begin(next(self._attempts))
        return replace(begun, **changes)  # type: ignore[arg-type]

    def attempt(
        self,
        attempt: int,
        epoch: int = 0,
        lost: Collection[str] = (),
        broadcast: Broadcast | None = None,
    ) -> Attempt:
        """Begin the round and take it to its end.

        Args:
            attempt: How often it was begun before.
            epoch: How often its noise was drawn anew.
            lost: Whose masked updates the server says never came.
            broadcast: What institutions are sent; by default what the server has for them.
        """
        sent = broadcast or self.server.begin(attempt, epoch)
        self.server.begin(attempt, epoch)
        gathering = MaskedGathering(self.server, 1)
        released = self.server.state.released
        told = Attempt(round_terms(self.plan, self.server.sizes, 1, attempt, released))
        answer: Answer | None = Answer()
        for step in MaskedStep:
            messages = told.messages[step] = {}
            for side in self.sides:
                who = side.institution.name
                if who in lost and step in (MaskedStep.CONFIRM, MaskedStep.UNMASK):
                    continue
                assert answer is not None
                messages[who] = bytes(side.take(step, Turn(1, answer, sent)).message or b"")
            counted = [(w, m) for w, m in messages.items() if w not in lost or step != "mask"]
            if step != MaskedStep.UNMASK:
                answer = gathering.close(step, counted)
            else:
                told.revealed = gathering.reveal(counted)
        return told


def unmasked(
    victim: str, block: str, whole: Attempt, without: Attempt
) -> npt.NDArray[np.unsignedinteger] | None:
    """Attack one update with the shares of two attempts; None where they do not fit together.

    Args:
        victim: Whose update of `block` is attacked, as it was masked in `whole`.
        block: The block.
        whole: All survived, so the shares of the victim's seed are known.
        without: The victim is said to be lost, so those of its mask key are.
    """
    terms = whole.terms
    seeds = {terms.points[n]: s.seeds[victim][block] for n, s in whole.shares().items()}
    keys = {terms.points[n]: s.mask_keys[victim] for n, s in without.shares().items()}
    mine = KeyPair.of_secret(combine(keys, terms.threshold), terms.digest, victim)
    if mine.public != whole.keys(victim).mask_key:
        return None
    streams = [self_stream(combine(seeds, terms.threshold), terms.digest, victim, block, -1)]
    for other in terms.blocks[block].owners:
        if other != victim:
            agreed = mine.agree(whole.keys(other).mask_key)
            sign = pair_sign(terms.points[victim], terms.points[other])
            streams.append(pair_stream(agreed, terms.digest, block, -sign))
    words = whole.masked(victim, block).copy()
    add_streams(words, streams)
    return words & words.dtype.type((1 << terms.bits(block)) - 1)


def refuses(terms: RoundTerms, message: bytes, kind: Kind) -> bool:
    """Whether a message, or its signature, does not verify under some terms."""
    try:
        frame.unseal(message, kind, terms)
    except ProtocolError:
        return True
    return False
