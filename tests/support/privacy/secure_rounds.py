"""A small federation under secure aggregation, and a round that a test takes step by step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import numpy as np

from fedfuse_ray import rng
from fedfuse_ray.privacy.identities import ByteSource, Identity
from fedfuse_ray.privacy.secure_aggregation import (
    BlockTerms,
    Client,
    Modular,
    RoundTerms,
    Server,
    Stage,
    Unmasked,
    word_dtype,
)
from fedfuse_ray.privacy.secure_aggregation import envelope as frame
from fedfuse_ray.privacy.secure_aggregation.envelope import Kind
from fedfuse_ray.privacy.secure_aggregation.messages import Delivery, MaskedInput


def simulation_identities(seed: int, institutions: Iterable[str]) -> dict[str, Identity]:
    """Return identities that repeat with the seed."""
    return {
        name: Identity.generate(rng.generator(seed, "secure-aggregation-identity", name).bytes)
        for name in institutions
    }


def simulation_randomness(seed: int, institution: str, round: int) -> ByteSource:
    """Return a source of keys that repeats: the same names give the same keys and bytes."""
    return rng.generator(seed, "secure-aggregation", institution, round).bytes


NAMES = tuple(f"site-{index}" for index in range(7))
THRESHOLD = 4
IDENTITIES = simulation_identities(0, NAMES)
OWNERS: dict[str, tuple[str, ...]] = {
    "encoder/ct": NAMES[:4],
    "encoder/mri": NAMES[3:],
    "fusion": NAMES,
    "head/medical": NAMES[2:3],
}
Inputs = dict[str, dict[str, Modular]]


def make_terms(
    round: int = 0, bits: int = 16, widths: Mapping[str, int] | None = None, **minimum: int
) -> RoundTerms:
    """Return terms; `widths` are blocks' own, `minimum` is by the first part of a block's name."""
    own = widths or {}
    return RoundTerms(
        session="test",
        round=round,
        threshold=THRESHOLD,
        modulus_bits=bits,
        identities={name: identity.public for name, identity in IDENTITIES.items()},
        blocks={
            block: BlockTerms(
                40 + len(block), owners, minimum.get(block.split("/")[0]), own.get(block)
            )
            for block, owners in OWNERS.items()
        },
    )


def make_inputs(terms: RoundTerms) -> Inputs:
    generator = rng.generator(0, "test", terms.modulus_bits)
    return {
        name: {
            block: generator.integers(
                0, 1 << terms.bits(block), terms.blocks[block].size, dtype=np.uint64
            ).astype(word_dtype(terms.bits(block)))
            for block in terms.owned_by(name)
        }
        for name in terms.identities
    }


def check_sums(
    terms: RoundTerms, inputs: Inputs, aggregate: Unmasked, survivors: Collection[str]
) -> None:
    for block, total in aggregate.sums.items():
        owners = tuple(name for name in terms.blocks[block].owners if name in survivors)
        exact = sum(1 * inputs[name][block].astype(np.uint64) for name in owners)
        np.testing.assert_array_equal(total, exact % (1 << terms.bits(block)))
        assert aggregate.owners[block] == owners
    assert set(aggregate.sums) | set(aggregate.withheld) == set(terms.blocks)


class Rounds:
    """A round taken step by step, so that a test can act as a malicious server."""

    def __init__(self, terms: RoundTerms) -> None:
        self.terms, self.inputs = terms, make_inputs(terms)
        self.clients = {
            name: Client(terms, name, IDENTITIES[name], simulation_randomness(1, name, terms.round))
            for name in NAMES
        }
        self.server = Server(terms)

    def message(self, stage: Stage, name: str, answer: bytes) -> bytes:
        client = self.clients[name]
        steps: dict[Stage, Callable[[], bytes]] = {
            Stage.ADVERTISE_KEYS: client.advertise,
            Stage.SHARE_KEYS: lambda: client.share_keys(answer),
            Stage.MASKED_INPUT: lambda: client.mask(answer, self.inputs[name]),
            Stage.CONSISTENCY_CHECK: lambda: client.confirm(answer),
            Stage.UNMASKING: lambda: client.unmask(answer),
        }
        return steps[stage]()

    def close(self, stage: Stage) -> Mapping[str, bytes]:
        if stage is Stage.SHARE_KEYS:
            return self.server.deliveries()
        steps = {
            Stage.ADVERTISE_KEYS: self.server.roster,
            Stage.MASKED_INPUT: self.server.survivors,
            Stage.CONSISTENCY_CHECK: self.server.confirmations,
        }
        return dict.fromkeys(NAMES, steps[stage]())

    def until(
        self, last: Stage, lost: Collection[str] = (), since: Stage = Stage.MASKED_INPUT
    ) -> Mapping[str, bytes]:
        """Play the stages before `last`; return the answers that open it.

        `lost` send nothing from the stage `since` on.
        """
        stages = list(Stage)
        answers: Mapping[str, bytes] = dict.fromkeys(NAMES, b"")
        for stage in stages[: stages.index(last)]:
            for name in self.server.expected:
                if name not in lost or stages.index(stage) < stages.index(since):
                    self.server.receive(self.message(stage, name, answers[name]))
            answers = self.close(stage)
        return answers

    def read(self, message: bytes, kind: Kind) -> memoryview:
        return frame.unseal(message, kind, self.terms).body

    def delivery(self, message: bytes) -> Delivery:
        return Delivery.from_bytes(self.read(message, Kind.SHARE_DELIVERY), self.terms)

    def masked(self, message: bytes, name: str) -> MaskedInput:
        return MaskedInput.from_bytes(self.read(message, Kind.MASKED_INPUT), self.terms, name)

    def answer(self, kind: Kind, records: Mapping[str, bytes]) -> bytes:
        """Return a list of signed records as a server sends it."""
        return frame.seal(kind, frame.write_records(records, self.terms), self.terms)

    def seal_delivery(self, delivery: Delivery) -> bytes:
        return frame.seal(Kind.SHARE_DELIVERY, delivery.to_bytes(self.terms), self.terms)

    def survivor_list(self, masked: Mapping[str, bytes], names: Collection[str]) -> bytes:
        """Return what a server sends that claims `names` to be the survivors."""
        records = {name: bytes(self.masked(masked[name], name).partners) for name in names}
        return self.answer(Kind.SURVIVORS, records)

    def records(self, kind: Kind, sealed: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return the signed records of messages of a kind."""
        return {n: bytes(frame.unseal(m, kind, self.terms).record) for n, m in sealed.items()}
