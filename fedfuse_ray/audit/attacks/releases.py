"""What the adversary sees of a run whose only records are canaries: the real path, round by round.

Sampling, per-record gradients, clipping, noise shares, modular sums and the division by the
expected batch are the functions that training itself calls (`joint_step`, `noisy_words`,
`gradient_sums`; `run_private_round` where institutions train by themselves). Only the masks of
secure aggregation are left out: they cancel to the bit, which its own tests show.

All other records add a constant that the adversary is assumed to know, so they are left out too.
What every round repeats exactly, the clipped sum of the same records, is taken once (repeated
releases: Nasr et al., 2023, arXiv 2302.07956); noise, grid and sums are those of each round.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from fedfuse_ray.audit.attacks.canaries import CanaryNet, HostCanaries, honest_owners
from fedfuse_ray.audit.attacks.institutions import institution_releases
from fedfuse_ray.blocks import Blocks
from fedfuse_ray.data.index import DatasetIndex
from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.institution.private_gradients import joint_step, run_private_round
from fedfuse_ray.federation.institution.training import LocalTraining
from fedfuse_ray.federation.modes.grid import grid_of
from fedfuse_ray.federation.modes.integers import gradient_sums, noisy_words
from fedfuse_ray.federation.plan.origin import facts
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.plan.terms import PrivacyTerms
from fedfuse_ray.privacy.mechanisms.gaussian import gaussian_noise
from fedfuse_ray.privacy.mechanisms.sampling import expected_batch
from fedfuse_ray.privacy.randomness import Randomness, derived
from fedfuse_ray.privacy.secure_aggregation import from_modular, to_modular

# Small enough for the weights to stay near zero, where a canary's gradient is what it should be.
_STEP = 1e-6


def releases(
    plan: Plan, hosts: Sequence[HostCanaries], sizes: Mapping[str, int], rounds: int
) -> Iterator[dict[str, Blocks]]:
    """Yield, for each round, the noisy sums that concern each host, by host.

    The plan has privacy terms; its randomness draws the noise.

    Raises:
        InputError: The privacy mode `local-update`.
    """
    terms = plan.terms
    if terms.config.mode == "client":
        yield from institution_releases(plan, hosts, sizes, rounds)
        return
    if not (terms.distributed or terms.local):
        raise InputError(
            "privacy.mode", terms.config.mode, "canaries audit record-... modes and client"
        )
    trainings = {h.institution: _training(plan, h, sizes) for h in hosts}
    if terms.local:
        for number in range(1, rounds + 1):
            yield {name: _local(t, plan, number) for name, t in trainings.items()}
        return
    among = {block: honest_owners(plan, terms, block) for block in plan.owners}
    everyone = all(release.sampling_rate >= 1.0 for release in terms.releases.values())
    updates: dict[str, Blocks] = {}
    for number in range(1, rounds + 1):
        if not (updates and everyone):
            updates = _clipped(plan, trainings, sizes, number)
        yield dict.fromkeys(trainings, secure_sum(updates, plan, number, among))


def released_variances(plan: Plan, terms: PrivacyTerms, host: str, round: int) -> dict[str, float]:
    """Return the variance that the noise on each of a host's blocks should have in a round."""
    blocks = plan.blocks_of(plan.by_name[host])
    stds, groups = terms.noise_stds(terms.sigma(host, round)), terms.groups(blocks)
    steps = terms.releases[host].steps
    return {block: steps * stds[groups[block]] ** 2 for block in blocks}


def secure_sum(
    updates: Mapping[str, Blocks], plan: Plan, round: int, among: Mapping[str, Sequence[str]]
) -> Blocks:
    """Return each block's noisy sum over the owners in `among`, in units of the gradient."""
    grid = grid_of(plan, round)
    totals: dict[str, npt.NDArray[np.int64]] = {}
    for name, update in updates.items():
        for block, vector in noisy_words(update, name, grid, plan.randomness).items():
            if name in among[block]:
                before = totals.get(block, np.zeros(len(vector), np.int64))
                # Unsigned words wrap around; in 64 bits, the modulus is taken at the end.
                totals[block] = before + vector.astype(np.int64)
    sums = {}
    for block, total in totals.items():
        bits = grid.bits(block)
        sums[block] = from_modular(to_modular(total, bits), bits)
    return gradient_sums(sums, grid)


def noisy_sums(parts: Mapping[str, Blocks], terms: PrivacyTerms, draws: Randomness) -> Blocks:
    """Return the sum over institutions that each add the full noise of one local step."""
    totals: Blocks = {}
    for name, part in parts.items():
        stds, groups = terms.noise_stds(terms.sigma(name, 1)), terms.groups(tuple(part))
        for block, vector in part.items():
            noise = draws.stream("local noise", name, block)
            noisy = vector + gaussian_noise(vector.size, stds[groups[block]], noise)
            totals[block] = totals.get(block, np.zeros_like(noisy)) + noisy
    return totals


def _training(plan: Plan, host: HostCanaries, sizes: Mapping[str, int]) -> LocalTraining:
    participant = plan.by_name[host.institution]
    plain = plan.experiment.training.model_copy(
        update={
            "optimizer": "sgd",
            "momentum": 0.0,
            "weight_decay": 0.0,
            "learning_rate": _STEP,
            "schedule": "constant",
        }
    )
    return LocalTraining(
        net=CanaryNet(
            plan.spec, participant.domain, participant.modalities, sizes, participant.tier
        ),
        data=host.records(plan.terms.config),
        training=plain,
        model=plan.experiment.model,
        batch_size=participant.batch_size,
        seed=plan.experiment.seed,
        name=participant.name,
    )


def _clipped(
    plan: Plan, trainings: Mapping[str, LocalTraining], sizes: Mapping[str, int], round: int
) -> dict[str, Blocks]:
    """Return each institution's clipped sum; without canaries it is zero."""
    updates: dict[str, Blocks] = {}
    for participant in plan.participants:
        training = trainings.get(participant.name)
        if training is not None:
            step = joint_step(training, round, plan.terms, plan.randomness)
            updates[participant.name] = step.update.weights
        else:
            updates[participant.name] = {
                b: np.zeros(sizes[b], np.float32) for b in plan.blocks_of(participant)
            }
    return updates


def _local(training: LocalTraining, plan: Plan, round: int) -> Blocks:
    """Return the sum over a round's steps of the noisy sums at one institution."""
    training.net.flat.zero_()
    result = run_private_round(training, round, plan.terms, plan.randomness)
    rate = plan.terms.releases[training.name].sampling_rate
    scale = np.float32(expected_batch(rate, training.data.unit_count) / _STEP)
    return {name: vector * scale for name, vector in result.update.weights.items()}


def reseeded(plan: Plan, seed: int, index: DatasetIndex | None = None) -> Plan:
    """Return the plan with other noise; its terms stay.

    With the data's index the noise depends on what is run, as that of a run of this seed would.
    """
    experiment = plan.experiment.model_copy(update={"seed": seed})
    draws = derived(seed)
    if index is not None:
        draws = draws.given(*facts(experiment, index, plan.privacy))
    return replace(plan, experiment=experiment, randomness=draws)
