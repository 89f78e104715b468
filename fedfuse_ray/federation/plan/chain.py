"""Which update transforms an experiment has, from its weights and privacy terms."""

from __future__ import annotations

from fedfuse_ray.federation.messages.transforms import (
    Fractions,
    Transforms,
    add_lacking_noise,
    add_own_noise,
    add_server_noise,
    clip,
    divide_by_expected,
    divide_by_weights,
    weigh,
)
from fedfuse_ray.federation.plan.terms import PrivacyTerms
from fedfuse_ray.privacy.randomness import Randomness


def transforms_of(
    fractions: Fractions, terms: PrivacyTerms | None, draws: Randomness
) -> Transforms:
    """Return the transforms of an experiment.

    Args:
        fractions: Each block's public weights over its owners.
        terms: The terms under which the run is private, if it is.
        draws: The run's randomness.

    Formal guarantees:
        Under `client` and `local-update` a sent update has an L2 norm of at most C, and the noise
        on a sum has the standard deviation that the ledger is charged with. Where few uploads are
        seen, a block's sum carries Gaussian noise of a variance of at least (broadcast_sigma C)^2,
        whichever owners are in it, that at most t of the other owners together don't know.
    """
    if terms is None or not terms.whole_updates:
        return Transforms((weigh(fractions),), (divide_by_weights(fractions),))
    clip_norm = terms.config.clip_norm
    rate = terms.config.sampling_rate
    mean = divide_by_expected(lambda block: rate * len(terms.owners[block]))
    if terms.config.mode == "client":
        noise = add_server_noise(lambda round: terms.common_sigma(round) * clip_norm, draws)
        return Transforms((clip(clip_norm),), (noise, mean))
    own = add_own_noise(lambda who, round: terms.sigma(who, round) * clip_norm, draws)
    lacking = add_lacking_noise(terms.lacking_std, draws)
    few = terms.config.uplink_exposures is not None
    return Transforms((clip(clip_norm), own), (lacking, mean) if few else (mean,))
