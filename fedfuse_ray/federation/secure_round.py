"""A round under secure aggregation: five exchanges, after which the server knows sums alone.

The steps are those of Bonawitz et al., 2017; the third carries the update. Both executors drive the
same loop: every member takes a step and answers, the server closes the step and answers all.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fedfuse_ray import rng
from fedfuse_ray.blocks import Blocks
from fedfuse_ray.errors import NotReadyError, ProtocolError
from fedfuse_ray.federation.plan import Plan
from fedfuse_ray.federation.privacy_terms import COUNT, MOST_GROWTH, PrivacyTerms
from fedfuse_ray.privacy.adaptive_clipping import AdaptiveClip
from fedfuse_ray.privacy.integer_noise import INTEGER_NOISE
from fedfuse_ray.privacy.secure_aggregation import (
    BlockTerms,
    Client,
    RoundTerms,
    Server,
    from_modular,
    minimum_threshold,
    simulation_identities,
    simulation_randomness,
    to_modular,
)

STEPS = ("advertise", "share keys", "mask", "confirm", "unmask")
CLIP_NORM = "clipping/norm"
"""Under adaptive clipping the server broadcasts the round's clipping norm as this block, [1]."""

MASK = "mask"
"""The step in which members train and send their masked update."""

Answer = bytes | dict[str, bytes]
"""What the server answers a step with: the same to all, or to each its own."""

Words = npt.NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class Revealed:
    """What a round reveals to the server.

    Attributes:
        sums: Block name to the sum of integers over its survivors, int64 [size].
        owners: Block name to these survivors.
        withheld: Blocks with too few survivors, whose sums stay masked.
        dropouts: Institutions that were lost on the way.
        uplink_bytes: All that each institution sent.
        refused: Sender, as far as known, and reason of each message turned away.
    """

    sums: dict[str, npt.NDArray[np.int64]]
    owners: dict[str, tuple[str, ...]]
    withheld: tuple[str, ...]
    dropouts: tuple[str, ...]
    uplink_bytes: dict[str, int]
    refused: tuple[tuple[str, str], ...]


@lru_cache(maxsize=4)
def _public_identities(seed: int, names: tuple[str, ...]) -> dict[str, bytes]:
    return {name: i.public for name, i in simulation_identities(seed, names).items()}


def round_terms(plan: Plan, sizes: Mapping[str, int], round: int) -> RoundTerms:
    """Return the terms that every party of a round derives from the plan.

    Args:
        plan: The federation's plan, with privacy terms.
        sizes: Number of parameters of each block.
        round: From 1.
    """
    terms = terms_of(plan)
    names = tuple(p.name for p in plan.participants)
    threshold = max(
        math.ceil(terms.config.secure_aggregation.threshold * len(names)),
        minimum_threshold(len(names)),
    )
    session = hashlib.blake2b(plan.experiment.model_dump_json().encode(), digest_size=16)
    return RoundTerms(
        session=session.hexdigest(),
        round=round,
        threshold=threshold,
        modulus_bits=terms.modulus_bits(sum(p.specimens for p in plan.participants)),
        identities=_public_identities(plan.experiment.seed, names),
        blocks={
            name: BlockTerms(1 if name == COUNT else sizes[name], owners, terms.shares(name))
            for name, owners in _secure_owners(plan).items()
        },
    )


def _secure_owners(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Return the owners of every block that is summed; all count unclipped records."""
    if not terms_of(plan).adaptive:
        return plan.owners
    return plan.owners | {COUNT: tuple(p.name for p in plan.participants)}


def noisy_words(
    sums: Blocks,
    institution: str,
    round: int,
    plan: Plan,
    modulus_bits: int,
    clip_norm: float | None = None,
) -> dict[str, Words]:
    """Return an institution's clipped sums plus its share of the noise, as modular integers.

    Args:
        sums: Block name to the clipped sum, float32 [size].
        institution: Names the noise's stream.
        round: From 1.
        plan: The federation's plan, with privacy terms.
        modulus_bits: Width of the modulus.
        clip_norm: The round's clipping norm where it is adaptive; `sums` then hold the count too.

    Formal guarantees: the survivors' shares of a block add up to the standard deviation of its
    group times the sensitivity after rounding, `IntegerScale.l2` over `scale * C`, or more.
    """
    terms = terms_of(plan)
    units = terms.scale.scale
    stds = _noise_stds(terms, tuple(sums), terms.sigma(institution, round), clip_norm)
    draw = INTEGER_NOISE[terms.config.mechanism]
    words = {}
    for name, vector in sums.items():
        generator = rng.generator(plan.experiment.seed, "noise share", institution, round, name)
        std = units * stds[name] / math.sqrt(terms.shares(name))
        exact = np.rint(vector.astype(np.float64) * units).astype(np.int64)
        words[name] = to_modular(exact + draw(vector.size, std, generator), modulus_bits)
    return words


def _noise_stds(
    terms: PrivacyTerms, blocks: tuple[str, ...], sigma: float, clip_norm: float | None
) -> dict[str, float]:
    """Return the standard deviation of each block's noise on the sum, widened for the rounding."""
    if clip_norm is not None:
        gradient, count = terms.adaptive_stds(sigma)
        scale = dataclasses.replace(terms.scale, clip_norm=clip_norm)
        return dict.fromkeys(blocks, gradient * scale.l2 / scale.scale) | {COUNT: count}
    widened = terms.scale.l2 / (terms.scale.scale * terms.scale.clip_norm)
    stds, groups = terms.noise_stds(sigma), terms.groups(blocks)
    return {name: widened * stds[group] for name, group in groups.items()}


def next_clip_norm(revealed: Revealed, plan: Plan, clip_norm: float) -> float:
    """Return the next round's clipping norm, from the noisy count of unclipped records."""
    terms = terms_of(plan)
    settings = terms.config.adaptive_clipping
    if COUNT not in revealed.sums:
        return clip_norm
    expected = _expected_batch(plan, revealed.owners[COUNT])
    count = float(revealed.sums[COUNT][0]) / terms.scale.scale
    clip = AdaptiveClip(clip_norm, settings.target_quantile, settings.learning_rate)
    first = terms.config.clip_norm
    moved = clip.update(count, expected).clip_norm
    return min(max(moved, first / MOST_GROWTH), first * MOST_GROWTH)


def _expected_batch(plan: Plan, owners: tuple[str, ...]) -> float:
    releases = terms_of(plan).releases
    return math.fsum(releases[who].sampling_rate * plan.by_name[who].specimens for who in owners)


def mean_gradients(revealed: Revealed, plan: Plan) -> Blocks:
    """Return each revealed block's sum over its expected batch, float32 [size].

    The expected batch comes from public sizes, never from the records that took part.
    """
    terms = terms_of(plan)
    means: Blocks = {}
    for name, total in revealed.sums.items():
        if name == COUNT:
            continue
        expected = _expected_batch(plan, revealed.owners[name])
        means[name] = (total / (terms.scale.scale * expected)).astype(np.float32)
    return means


def terms_of(plan: Plan) -> PrivacyTerms:
    """Return the plan's privacy terms, which it must have."""
    if plan.privacy is None:
        raise ProtocolError("this federation has no privacy terms")
    return plan.privacy


class Member:
    """An institution's side of one round.

    Args:
        plan: The federation's plan.
        institution: Who this is.
        sizes: Number of parameters of each block.
        round: From 1.
    """

    def __init__(self, plan: Plan, institution: str, sizes: Mapping[str, int], round: int) -> None:
        identities = simulation_identities(plan.experiment.seed, (institution,))
        self.terms = round_terms(plan, sizes, round)
        self.round = round
        self._client = Client(
            self.terms,
            institution,
            identities[institution],
            simulation_randomness(plan.experiment.seed, institution, round),
        )
        self._name = institution

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
    """

    def __init__(self, plan: Plan, sizes: Mapping[str, int], round: int) -> None:
        self.round = round
        self._terms = round_terms(plan, sizes, round)
        self._server = Server(self._terms)
        self._bytes: dict[str, int] = dict.fromkeys(self._terms.identities, 0)
        self._refused: list[tuple[str, str]] = []

    def step(self, step: str, messages: Iterable[tuple[str, bytes | memoryview]]) -> Answer:
        """Take the members' messages of a step before the last; return what they get.

        Raises:
            ProtocolError: Fewer members are left than the threshold.
        """
        self._receive(messages)
        if step == "advertise":
            return self._server.roster()
        if step == "share keys":
            return self._server.deliveries()
        if step == MASK:
            return self._server.survivors()
        if step == "confirm":
            return self._server.confirmations()
        raise NotReadyError(f"no answer follows the step {step!r}")

    def reveal(self, messages: Iterable[tuple[str, bytes | memoryview]]) -> Revealed:
        """Take the messages of the last step and return the sums."""
        self._receive(messages)
        aggregate = self._server.aggregate()
        bits = self._terms.modulus_bits
        lost = {name for names in aggregate.dropouts.values() for name in names}
        return Revealed(
            sums={name: from_modular(words, bits) for name, words in aggregate.sums.items()},
            owners=dict(aggregate.owners),
            withheld=aggregate.withheld,
            dropouts=tuple(name for name in self._terms.identities if name in lost),
            uplink_bytes=dict(self._bytes),
            refused=tuple(self._refused),
        )

    def _receive(self, messages: Iterable[tuple[str, bytes | memoryview]]) -> None:
        for sender, message in messages:
            try:
                self._server.receive(message)
            except ProtocolError as error:
                self._refused.append((sender, str(error)))
                continue
            self._bytes[sender] += len(message)
