"""How much each canary looks as if it had taken part: its log-likelihood ratio, nearly.

A canary of length C in every one of T rounds is seen through noise of variance (sigma_t C)^2, so
the sum over rounds weighted by 1 / sigma_t^2 is all that counts. Canaries may share coordinates:
what all of them add in the mean is taken off first, and the variance of what they add, which stays
the same from round to round, counts as noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fedfuse_ray.audit.attacks.canaries import HostCanaries
from fedfuse_ray.audit.attacks.releases import released_variances, releases
from fedfuse_ray.federation.plan.plan import Plan

Floats = npt.NDArray[np.float64]

Evidence = dict[str, dict[str, Floats]]
"""By host and block: what the releases tell of each coordinate's sum, over its variance."""

Moments = tuple[Floats, Floats]
"""Mean and variance of a block's coordinates."""


def scores(
    plan: Plan, hosts: Sequence[HostCanaries], sizes: Mapping[str, int], rounds: int
) -> Floats:
    """Return every canary's score by one run, in the order of the hosts."""
    return _projected(_evidence(plan, hosts, sizes, rounds, blur=rounds), plan, hosts)


def joint_scores(
    plans: Sequence[Plan], hosts: Sequence[HostCanaries], sizes: Mapping[str, int], rounds: int
) -> Floats:
    """Return every canary's score by the best linear combination of two runs' releases.

    The combination is that of least variance, block by block, by the covariance that the releases
    themselves show: w = S^-1 1. Independent noise is averaged; noise in common is taken off.
    """
    first, second = (_evidence(plan, hosts, sizes, rounds, blur=0) for plan in plans)
    both: Evidence = {}
    for host, blocks in first.items():
        both[host] = {}
        for block, one in blocks.items():
            if not one.size:
                both[host][block] = one
                continue
            pair = np.stack([one, second[host][block]])
            # Each in units of the sum, so that a canary shows equally in both.
            pair /= np.array([[_gain(plan, host, block, rounds)] for plan in plans])
            weights, variance = _least_variance(pair)
            both[host][block] = (weights[:, None] * pair).sum(axis=0) / variance
    return _projected(both, plans[0], hosts)


def _least_variance(pair: Floats) -> tuple[Floats, float]:
    """Return the weights of the best mean of two rows, [2], and its variance.

    Plain sums, so that no library's kernel has a say in them.
    """
    first, second = pair - pair.mean(axis=1, keepdims=True)
    a, d = float((first**2).mean()), float((second**2).mean())
    b = float((first * second).mean())
    # So that equal releases, or none, weigh alike.
    ridge = 1e-9 * (a + d) + 1e-30
    a, d = a + ridge, d + ridge
    total = a + d - 2.0 * b
    return np.array([d - b, a - b]) / total, (a * d - b * b) / total


def _gain(plan: Plan, host: str, block: str, rounds: int) -> float:
    """Return by how much the evidence of a coordinate rises with its sum."""
    rate = mean_rate(plan, host)
    return sum(
        rate / released_variances(plan, plan.terms, host, number)[block]
        for number in range(1, rounds + 1)
    )


def mean_rate(plan: Plan, host: str) -> float:
    """Return how often an included canary is in a round's release, in the mean.

    Where a unit may stand at k institutions, it is k times there.
    """
    release = plan.terms.releases[host]
    return release.sampling_rate * release.steps * plan.terms.config.institutions_per_unit


def _evidence(
    plan: Plan,
    hosts: Sequence[HostCanaries],
    sizes: Mapping[str, int],
    rounds: int,
    *,
    blur: int,
) -> Evidence:
    """Return the evidence; other canaries count as `blur` times their variance of noise a round."""
    prior = _prior(plan, hosts, sizes)
    seen: Evidence = {
        host: {block: np.zeros(len(mean)) for block, (mean, _) in parts.items()}
        for host, parts in prior.items()
    }
    for number, released in enumerate(releases(plan, hosts, sizes, rounds), 1):
        for host, parts in prior.items():
            variances = released_variances(plan, plan.terms, host, number)
            for block, (mean, spread) in parts.items():
                noise = variances[block] + blur * spread
                seen[host][block] += (released[host][block] - mean) / noise
    return seen


def _projected(seen: Evidence, plan: Plan, hosts: Sequence[HostCanaries]) -> Floats:
    found = []
    for host in hosts:
        flat = np.concatenate(list(seen[host.institution].values()))
        means = mean_rate(plan, host.institution) * host.values
        found.append((means * flat[host.positions]).sum(axis=1))
    return np.concatenate(found)


def _prior(
    plan: Plan, hosts: Sequence[HostCanaries], sizes: Mapping[str, int]
) -> dict[str, dict[str, Moments]]:
    """Return the moments of what canaries add to each host's blocks, before anything is seen."""
    own: dict[str, dict[str, Moments]] = {}
    for host in hosts:
        blocks = plan.blocks_of(plan.by_name[host.institution])
        means = mean_rate(plan, host.institution) / 2.0 * host.values
        first = np.zeros(sum(sizes[b] for b in blocks))
        second = np.zeros_like(first)
        np.add.at(first, host.positions, means)
        np.add.at(second, host.positions, means**2)
        cuts = np.cumsum([sizes[b] for b in blocks])[:-1]
        pairs = zip(np.split(first, cuts), np.split(second, cuts), strict=True)
        own[host.institution] = dict(zip(blocks, pairs, strict=True))
    if plan.terms.local:
        return own
    total = {block: (np.zeros(size), np.zeros(size)) for block, size in sizes.items()}
    for parts in own.values():
        for block, (mean, spread) in parts.items():
            total[block] = (total[block][0] + mean, total[block][1] + spread)
    return {name: {block: total[block] for block in parts} for name, parts in own.items()}
