"""A round under secure aggregation: five exchanges, after which the server knows sums alone.

The steps are those of Bonawitz et al., 2017; the third carries the update. Both executors drive the
same loop: every member takes a step and answers, the server closes the step and answers all.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fedfuse_ray.blocks import Vector
from fedfuse_ray.errors import NotReadyError, ProtocolError, TooFewError
from fedfuse_ray.federation.modes.integers import WIDEST_MODULUS, Words, modulus_bits, terms_of
from fedfuse_ray.federation.modes.steps import MASK as MASK
from fedfuse_ray.federation.modes.steps import MASKED
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.plan.terms import COUNT
from fedfuse_ray.privacy.secure_aggregation import (
    BlockTerms,
    Client,
    RoundTerms,
    Server,
    from_modular,
    minimum_threshold,
    simulation_identities,
    simulation_randomness,
)

STEPS = MASKED

Answer = bytes | dict[str, bytes]
"""What the server answers a step with: the same to all, or to each its own."""

Messages = Iterable[tuple[str, bytes | memoryview]]
"""Sender and message."""


@dataclass(frozen=True)
class Exchange:
    """One step of one institution: the lengths of its message and of the answer."""

    uplink_bytes: int
    downlink_bytes: int


@dataclass(frozen=True)
class Revealed:
    """What a round reveals to the server.

    Attributes:
        sums: Block name to the sum of integers over its survivors, int64 [size].
        owners: Block name to these survivors.
        withheld: Blocks with too few survivors, whose sums stay masked.
        dropouts: Institutions that were lost on the way.
        traffic: By step and institution, what it sent and what it was answered.
        refused: Sender, as far as known, and reason of each message turned away.
        steps: Local optimizer steps of each institution, where it tells them.
    """

    sums: dict[str, npt.NDArray[np.int64]]
    owners: dict[str, tuple[str, ...]]
    withheld: tuple[str, ...]
    dropouts: tuple[str, ...]
    traffic: dict[str, dict[str, Exchange]]
    refused: tuple[tuple[str, str], ...]
    steps: Mapping[str, int] = field(default_factory=dict)

    @property
    def sent(self) -> dict[str, int]:
        """Bytes sent by each institution, over all steps."""
        return total_bytes(self.traffic)[0]


def total_bytes(
    traffic: Mapping[str, Mapping[str, Exchange]],
) -> tuple[dict[str, int], dict[str, int]]:
    """Return bytes sent and bytes received by each institution, over all steps."""
    sent: dict[str, int] = {}
    received: dict[str, int] = {}
    for exchanges in traffic.values():
        for who, exchange in exchanges.items():
            sent[who] = sent.get(who, 0) + exchange.uplink_bytes
            received[who] = received.get(who, 0) + exchange.downlink_bytes
    return sent, received


@lru_cache(maxsize=4)
def _public_identities(seed: int, names: tuple[str, ...]) -> dict[str, bytes]:
    return {name: i.public for name, i in simulation_identities(seed, names).items()}


def least_members(plan: Plan) -> int:
    """Return the threshold: how many institutions must stay to the end of a round."""
    count = len(plan.participants)
    wanted = math.ceil(terms_of(plan).config.secure_aggregation.threshold * count)
    return max(wanted, minimum_threshold(count))


def round_terms(
    plan: Plan, sizes: Mapping[str, int], round: int, extra: Mapping[str, Vector]
) -> RoundTerms:
    """Return the terms that every party of a round derives from the plan.

    Args:
        plan: The federation's plan, with privacy terms.
        sizes: Number of parameters of each block.
        round: From 1.
        extra: The broadcast's vectors: the policy's choices of bits.
    """
    terms = terms_of(plan)
    names = tuple(p.name for p in plan.participants)
    session = hashlib.blake2b(plan.experiment.model_dump_json().encode(), digest_size=16)
    coordinates = {n: plan.coding.coordinates(n, size) for n, size in sizes.items()} | {COUNT: 1}
    return RoundTerms(
        session=session.hexdigest(),
        round=round,
        threshold=least_members(plan),
        modulus_bits=WIDEST_MODULUS,
        identities=_public_identities(plan.experiment.seed, names),
        blocks={
            name: BlockTerms(
                size=coordinates[name],
                owners=owners,
                minimum_survivors=terms.shares(name),
                modulus_bits=modulus_bits(plan, name, extra),
            )
            for name, owners in _secure_owners(plan).items()
        },
    )


def _secure_owners(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Return the owners of every block that is summed; all count unclipped records."""
    if not terms_of(plan).adaptive:
        return plan.owners
    return plan.owners | {COUNT: tuple(p.name for p in plan.participants)}


class Member:
    """An institution's side of one round.

    Args:
        plan: The federation's plan.
        institution: Who this is.
        sizes: Number of parameters of each block.
        round: From 1.
        extra: The broadcast's vectors.

    Attributes:
        gone: It was late, and takes no further step.
    """

    def __init__(
        self,
        plan: Plan,
        institution: str,
        sizes: Mapping[str, int],
        round: int,
        extra: Mapping[str, Vector],
    ) -> None:
        identities = simulation_identities(plan.experiment.seed, (institution,))
        self.terms = round_terms(plan, sizes, round, extra)
        self.round = round
        self._client = Client(
            self.terms,
            institution,
            identities[institution],
            simulation_randomness(plan.experiment.seed, institution, round),
        )
        self._name = institution
        self.gone = False

    def step(self, step: str, answer: Answer, words: Mapping[str, Words] | None = None) -> bytes:
        """Take one step and return the message for the server."""
        own = answer.get(self._name, b"") if isinstance(answer, dict) else answer
        if step == "advertise":
            return self._client.advertise()
        if step == "share keys":
            return self._client.share_keys(own)
        if step == MASK:
            return self._client.mask(own, words or {})
        if step == "confirm":
            return self._client.confirm(own)
        return self._client.unmask(own)


class Gathering:
    """The server's side of one round; it adds masked vectors up as they come and keeps none.

    Args:
        plan: The federation's plan.
        sizes: Number of parameters of each block.
        round: From 1.
        extra: The server's state, with the policy's choices.
    """

    def __init__(
        self, plan: Plan, sizes: Mapping[str, int], round: int, extra: Mapping[str, Vector]
    ) -> None:
        self.round = round
        self._terms = round_terms(plan, sizes, round, extra)
        self._server = Server(self._terms)
        self._traffic: dict[str, dict[str, Exchange]] = {}
        self._refused: list[tuple[str, str]] = []

    def step(self, step: str, messages: Messages) -> Answer | None:
        """Take the members' messages of a step before the last; return what they get.

        None says that fewer members are left than the threshold.
        """
        self._receive(step, messages)
        try:
            answer = self._answer(step)
        except TooFewError:
            return None
        exchanges = self._traffic[step]
        for who in self._server.expected:
            told = len(answer.get(who, b"") if isinstance(answer, dict) else answer)
            exchanges[who] = replace(exchanges[who], downlink_bytes=told)
        return answer

    def _answer(self, step: str) -> Answer:
        if step == "advertise":
            return self._server.roster()
        if step == "share keys":
            return self._server.deliveries()
        if step == MASK:
            return self._server.survivors()
        if step == "confirm":
            return self._server.confirmations()
        raise NotReadyError(f"no answer follows the step {step!r}")

    def reveal(self, messages: Messages) -> Revealed:
        """Take the messages of the last step and return the sums."""
        self._receive(STEPS[-1], messages)
        try:
            aggregate = self._server.aggregate()
        except TooFewError:
            return self.lost()
        bits = self._terms.bits
        lost = {name for names in aggregate.dropouts.values() for name in names}
        return Revealed(
            sums={name: from_modular(words, bits(name)) for name, words in aggregate.sums.items()},
            owners=dict(aggregate.owners),
            withheld=aggregate.withheld,
            dropouts=tuple(name for name in self._terms.identities if name in lost),
            traffic=self._traffic,
            refused=tuple(self._refused),
        )

    def lost(self) -> Revealed:
        """Return what is revealed when too few members are left: nothing."""
        return Revealed(
            sums={},
            owners={},
            withheld=tuple(self._terms.blocks),
            dropouts=tuple(self._terms.identities),
            traffic=self._traffic,
            refused=tuple(self._refused),
        )

    def _receive(self, step: str, messages: Messages) -> None:
        exchanges = self._traffic[step] = {}
        for sender, message in messages:
            try:
                self._server.receive(message)
            except ProtocolError as error:
                self._refused.append((sender, str(error)))
                continue
            exchanges[sender] = Exchange(len(message), 0)
