"""What all parties of one attempt of a secure round derive alike: identities, threshold, terms."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from functools import lru_cache

from fedfuse_ray.federation.messages.released import Released
from fedfuse_ray.federation.modes.grid import WIDEST_MODULUS, grid_of
from fedfuse_ray.federation.plan.noise_shape import COUNT
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.plan.terms import PrivacyTerms
from fedfuse_ray.privacy.randomness import Randomness
from fedfuse_ray.privacy.secure_aggregation import (
    BlockTerms,
    Identity,
    RoundTerms,
    minimum_threshold,
)


def identity_of(draws: Randomness, institution: str) -> Identity:
    """Return an institution's long-lived signing key."""
    return Identity.generate(draws.source("identity", institution))


@lru_cache(maxsize=4)
def _public_identities(draws: Randomness, names: tuple[str, ...]) -> dict[str, bytes]:
    return {name: identity_of(draws, name).public for name in names}


def least_members(terms: PrivacyTerms) -> int:
    """Return the threshold: how many institutions must stay to the end of a round."""
    count = len(terms.releases)
    wanted = math.ceil(terms.config.secure_aggregation.threshold * count)
    colluding = min(terms.config.colluding, count - 1)
    return max(wanted, minimum_threshold(count, colluding))


def round_terms(
    plan: Plan, sizes: Mapping[str, int], round: int, attempt: int, released: Released
) -> RoundTerms:
    """Return the terms that every party of a round derives from the plan.

    Args:
        plan: The federation's plan, with privacy terms.
        sizes: Number of parameters of each block.
        round: From 1.
        attempt: How often the round was begun before, in this session.
        released: The round's terms that change: the policy's choices of bits.
    """
    terms, grid = plan.terms, grid_of(plan, round, released)
    names = tuple(plan.by_name)
    config = hashlib.blake2b(plan.experiment.model_dump_json().encode(), digest_size=16)
    coordinates = {n: plan.coding.coordinates(n, size) for n, size in sizes.items()} | {COUNT: 1}
    # All count unclipped records, where the clipping norm follows them.
    owners = plan.owners | ({COUNT: names} if terms.adaptive else {})
    return RoundTerms(
        session=f"{config.hexdigest()} {plan.session} {attempt}",
        round=round,
        threshold=least_members(terms),
        modulus_bits=WIDEST_MODULUS,
        identities=_public_identities(plan.randomness, names),
        blocks={
            name: BlockTerms(
                size=coordinates[name],
                owners=whose,
                minimum_survivors=terms.shares(name),
                modulus_bits=grid.bits(name),
            )
            for name, whose in owners.items()
        },
    )
