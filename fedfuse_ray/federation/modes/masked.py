"""A round under secure aggregation: five exchanges, after which the server knows sums alone.

The steps are those of Bonawitz et al., 2017; the third carries the update.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, assert_never

from fedfuse_ray.errors import ProtocolError, SurvivorsChangedError, TooFewError
from fedfuse_ray.federation.checkpoints.promise import Promise
from fedfuse_ray.federation.messages.records import Reply, with_payload
from fedfuse_ray.federation.messages.updates import Kept
from fedfuse_ray.federation.modes.agreed import check_begun, check_broadcast
from fedfuse_ray.federation.modes.exchange import Answer, Messages, Mode, Turn, as_step
from fedfuse_ray.federation.modes.grid import grid_of
from fedfuse_ray.federation.modes.integers import Integers, Owners, mean_gradients, noisy_words
from fedfuse_ray.federation.modes.next_terms import after_round
from fedfuse_ray.federation.modes.outcome import Closed, Exchange, total_bytes
from fedfuse_ray.federation.modes.session import identity_of, round_terms
from fedfuse_ray.federation.server.server import Aggregation, ParameterServer
from fedfuse_ray.federation.strategies import Aggregate
from fedfuse_ray.packing import packed_bytes
from fedfuse_ray.privacy.mechanisms.gaussian import realised_noise_multiplier
from fedfuse_ray.privacy.secure_aggregation import (
    Client,
    Server,
    from_modular,
)

if TYPE_CHECKING:  # torch: the server does without
    from fedfuse_ray.federation.institution.institution import Institution


class MaskedStep(StrEnum):
    """The steps of Bonawitz et al., 2017, figure 4."""

    ADVERTISE = "advertise"
    SHARE_KEYS = "share keys"
    MASK = "mask"
    CONFIRM = "confirm"
    UNMASK = "unmask"


class MaskedMember:
    """An institution's side.

    Args:
        institution: Whose side.
        turn: The first turn.
    """

    def __init__(self, institution: Institution, turn: Turn) -> None:
        self._institution = institution
        self._spent, self._basis = check_broadcast(institution, turn), ""
        institution.memory = check_begun(institution, turn)
        plan, name, broadcast = institution.plan, institution.name, turn.broadcast
        attempt = broadcast.attempt
        self._terms = round_terms(plan, broadcast.sizes, turn.round, attempt, broadcast.released)
        # Of this attempt alone: shares that an earlier one revealed tell nothing of its keys.
        keys = plan.randomness.source("secure aggregation", name, turn.round, plan.session, attempt)
        self._client = Client(self._terms, name, identity_of(plan.randomness, name), keys)

    def take(self, step: str, turn: Turn) -> Reply:
        """Take one step."""
        answer, taken = turn.answer.to(self._institution.name), as_step(MaskedStep, step)
        if taken is not MaskedStep.ADVERTISE and not answer:
            return Reply()  # the server counts it as lost: what it sent before was refused
        match taken:
            case MaskedStep.ADVERTISE:
                return Reply(self._client.advertise())
            case MaskedStep.SHARE_KEYS:
                return Reply(self._client.share_keys(answer))
            case MaskedStep.MASK:
                return self._mask(answer, turn)
            case MaskedStep.CONFIRM:
                return self._confirm(answer, turn)
            case MaskedStep.UNMASK:
                return Reply(self._client.unmask(answer))
            case never:
                assert_never(never)

    def _confirm(self, answer: bytes, turn: Turn) -> Reply:
        """Confirm the survivors, unless others were confirmed for the same noise."""
        message = self._client.confirm(answer)
        me, epoch = self._institution, turn.broadcast.epoch
        promise = Promise(turn.round, epoch, self._client.survivors, self._basis)
        for known in (me.memory, turn.memory):
            if known.allows(promise):
                continue
            refusal = f"{me.name} confirmed other survivors or weights of round {turn.round}, and "
            if turn.round < known.last:  # new noise would not mend what was released since
                raise ProtocolError(f"{refusal}round {known.last} rests on them")
            raise SurvivorsChangedError(f"{refusal}won't confirm these under the same noise")
        me.memory = me.memory.after(promise)
        return Reply(message)

    def _mask(self, answer: bytes, turn: Turn) -> Reply:
        began = time.perf_counter()
        me = self._institution
        received = me.receive(turn.broadcast, turn.behind)
        self._basis = received.basis
        # What is charged again is drawn again: the sample, too, since noise alone would not do for
        # the amplification that is accounted.
        epoch = f"epoch {turn.broadcast.epoch}".encode()
        draws = me.plan.randomness.given(received.digest, epoch)
        result = me.joint_step(turn.round, received, draws)
        grid = grid_of(me.plan, turn.round, received.released)
        words = noisy_words(result.update.weights, me.name, grid, draws)
        message = self._client.mask(answer, words)
        lengths = {n: packed_bytes(w.size, self._terms.bits(n)) for n, w in words.items()}
        record = me.record(result, turn.round, received.nbytes, len(message), began)
        sizes = {n: turn.broadcast.sizes.get(n, 1) for n in lengths}
        kept = Kept(spent=self._spent) if self._spent else None
        return Reply(message, with_payload(record, lengths, sizes), kept)


@dataclass(frozen=True)
class Revealed:
    """What a round reveals to the server.

    Attributes:
        sums: Block name to the sum of integers over its survivors, int64 [size].
        owners: Block name to these survivors.
        withheld: Blocks with too few survivors, whose sums stay masked.
        dropouts: Institutions that were lost on the way.
    """

    sums: dict[str, Integers]
    owners: dict[str, tuple[str, ...]]
    withheld: tuple[str, ...]
    dropouts: tuple[str, ...]


class MaskedGathering:
    """The server's side; it adds masked vectors up as they come and keeps none.

    Args:
        server: Whose side.
        round: From 1.
    """

    def __init__(self, server: ParameterServer, round: int) -> None:
        self._parameters, self._round = server, round
        released = server.state.released
        self._terms = round_terms(server.plan, server.sizes, round, server.attempt, released)
        self._grid = grid_of(server.plan, round, released)
        self._server = Server(self._terms)
        self._traffic: dict[str, dict[str, Exchange]] = {}
        self._refused: list[tuple[str, str]] = []

    @property
    def survivors(self) -> tuple[str, ...]:
        """Whose updates will be in the sums, once that is settled."""
        return self._server.summed

    def close(self, step: str, messages: Messages) -> Answer | None:
        """Take the members' messages of a step before the last; return what they get.

        None says that fewer members are left than the threshold.
        """
        closed = as_step(MaskedStep, step)
        self._receive(closed, messages)
        try:
            answer = self._answer(closed)
        except TooFewError:
            return None
        exchanges, apart = self._traffic[closed], {}
        for who in self._server.expected:
            apart[who] = answer.to(who)
            exchanges[who] = replace(exchanges[who], downlink_bytes=len(apart[who]))
        return Answer(apart=apart)

    def _answer(self, step: MaskedStep) -> Answer:
        match step:
            case MaskedStep.ADVERTISE:
                return Answer(self._server.roster())
            case MaskedStep.SHARE_KEYS:
                return Answer(apart=self._server.deliveries())
            case MaskedStep.MASK:
                return Answer(self._server.survivors())
            case MaskedStep.CONFIRM:
                return Answer(self._server.confirmations())
            case MaskedStep.UNMASK:
                raise ProtocolError("the last step ends the round; no answer follows it")
            case never:
                assert_never(never)

    def reveal(self, messages: Messages) -> Revealed:
        """Take the messages of the last step and return the sums, which change nothing yet."""
        self._receive(MaskedStep.UNMASK, messages)
        try:
            unmasked = self._server.unmask()
        except TooFewError:
            return self._nothing()
        bits = self._terms.bits
        lost = {name for names in unmasked.dropouts.values() for name in names}
        return Revealed(
            sums={name: from_modular(words, bits(name)) for name, words in unmasked.sums.items()},
            owners=dict(unmasked.owners),
            withheld=unmasked.withheld,
            dropouts=tuple(name for name in self._terms.identities if name in lost),
        )

    def _nothing(self) -> Revealed:
        """What a round reveals of which too few members are left."""
        return Revealed({}, {}, tuple(self._terms.blocks), tuple(self._terms.identities))

    def finish(self, messages: Messages) -> Closed:
        """Unmask the sums, and step along them."""
        return self._stepped(self.reveal(messages))

    def lost(self) -> Closed:
        """Step without a sum."""
        return self._stepped(self._nothing())

    def _stepped(self, revealed: Revealed) -> Closed:
        server, sums, owners = self._parameters, revealed.sums, revealed.owners
        self._check_noise(owners)
        means = mean_gradients(sums, owners, self._grid, server.sizes)
        everyone = server.plan.owners
        aggregate = Aggregate(
            mean=means,
            steps=dict.fromkeys(means, 1.0),
            participation={n: len(owners[n]) / len(everyone[n]) for n in means},
        )
        state = after_round(server.state, sums, owners, self._grid, server.adaptation)
        server.advance(self._round, aggregate, state)
        sent = total_bytes(self._traffic)[0]
        return Closed(Aggregation(sent, tuple(self._refused)), self._traffic, revealed.dropouts)

    def _check_noise(self, owners: Owners) -> None:
        """Check that every revealed sum has the noise that the ledger was charged for.

        Raises:
            ProtocolError: A block was revealed with too few shares.
        """
        terms, planned = self._grid.terms, self._grid.terms.common_sigma(self._round)
        blocks = {name: self._terms.blocks[name].owners for name in owners}
        missing = {name: len(whose) - len(owners[name]) for name, whose in blocks.items()}
        tolerated = terms.config.tolerated_dropouts
        counts = {name: len(whose) for name, whose in blocks.items()}
        if realised_noise_multiplier(planned, counts, tolerated, missing) < planned:
            raise ProtocolError(f"round {self._round} revealed sums with too little noise")

    def _receive(self, step: MaskedStep, messages: Messages) -> None:
        exchanges = self._traffic[step.value] = {}
        for sender, message in messages:
            try:
                self._server.receive(message)
            except ProtocolError as error:
                self._refused.append((sender, str(error)))
                continue
            exchanges[sender] = Exchange(len(message), 0)


MODE = Mode(
    steps=MaskedStep, update=MaskedStep.MASK, member=MaskedMember, gathering=MaskedGathering
)
