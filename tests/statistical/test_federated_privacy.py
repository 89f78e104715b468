"""What really leaves an institution under `record-distributed`, with faults that must be caught.

Each check is a function that says whether a federation's released sums are as the ledger claims;
it has to pass on the real path, and to fail where a fault is planted into it.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from fedfuse_ray import rng
from fedfuse_ray.federation.checkpoints.checkpoint import Checkpoint
from fedfuse_ray.federation.institution import private_gradients
from fedfuse_ray.federation.institution.institution import Institution, NetCache
from fedfuse_ray.federation.messages.released import NOTHING_RELEASED
from fedfuse_ray.federation.modes import masked as secure_round
from fedfuse_ray.federation.modes.exchange import Answer, Turn
from fedfuse_ray.federation.modes.grid import grid_of
from fedfuse_ray.federation.modes.integers import noisy_words
from fedfuse_ray.federation.modes.masked import (
    MaskedGathering,
    MaskedStep,
    Revealed,
)
from fedfuse_ray.federation.modes.session import round_terms
from fedfuse_ray.federation.modes.sides import InstitutionSide
from fedfuse_ray.federation.server.server import ParameterServer
from fedfuse_ray.models.initial import block_sizes, initial_blocks
from fedfuse_ray.packing import unpack
from fedfuse_ray.privacy.mechanisms.clipping import clip_and_sum_torch
from fedfuse_ray.privacy.secure_aggregation import RoundTerms, envelope, from_modular
from fedfuse_ray.privacy.secure_aggregation.messages import MaskedInput
from tests.support.federations import dataset_of, plan_of, tiny

ROUNDS = 30


@pytest.fixture(scope="module")
def plan():
    return plan_of(tiny("training.rounds=30", paradigm="fedfuse"))


@pytest.fixture(scope="module")
def institutions(plan):
    nets, data = NetCache(plan), dataset_of(plan.experiment)
    return [Institution(plan, p, data, nets) for p in plan.participants]


def released_noise(plan, words_of=noisy_words):
    """Sum the noise alone over all owners, in units of the gradient, [rounds * size] by block."""
    sizes = block_sizes(plan.spec)
    noise: dict[str, list[np.ndarray]] = {name: [] for name in plan.owners}
    for round in range(1, ROUNDS + 1):
        totals = {name: np.zeros(sizes[name], np.int64) for name in plan.owners}
        grid = grid_of(plan, round)
        for p in plan.participants:
            zeros = {name: np.zeros(sizes[name], np.float32) for name in plan.blocks_of(p)}
            for name, words in words_of(zeros, p.name, grid, plan.randomness).items():
                totals[name] += from_modular(words, grid.bits(name))
        for name, total in totals.items():
            noise[name].append(total / grid.units(name))
    return {name: np.concatenate(values) for name, values in noise.items()}


def noise_is_as_charged(plan, noise) -> bool:
    """Whether every block carries the charged noise or more: a one-sided chi-square at 5 sigma."""
    sigma = plan.privacy.events("med-01", (), 1)[0].noise_multiplier
    for values in noise.values():
        ratio = np.mean((values / (sigma * plan.privacy.config.clip_norm)) ** 2)
        if ratio < 1 - 5 * math.sqrt(2 / values.size):
            return False
    return True


def test_the_released_sums_carry_the_charged_noise(plan):
    assert noise_is_as_charged(plan, released_noise(plan))


def test_noise_divided_by_the_root_of_fifteen_is_caught(plan):
    release = {
        name: dataclasses.replace(r, noise_multiplier=r.noise_multiplier / math.sqrt(15))
        for name, r in plan.privacy.releases.items()
    }
    weak = dataclasses.replace(plan, privacy=dataclasses.replace(plan.privacy, releases=release))
    assert not noise_is_as_charged(plan, released_noise(weak))


def test_noise_left_out_of_one_block_is_caught(plan):
    def without_fusion(sums, name, grid, draws):
        words = noisy_words(sums, name, grid, draws)
        return words | {"fusion": np.zeros_like(words["fusion"])}

    assert not noise_is_as_charged(plan, released_noise(plan, without_fusion))


def test_noise_shares_that_ignore_dropouts_are_caught(plan):
    """With t owners gone, shares that were not inflated for them no longer reach sigma."""
    gone = plan.participants[0].name

    def survivors_only(sums, name, grid, draws):
        words = noisy_words(sums, name, grid, draws)
        return {} if name == gone else words

    covered = {n for n, o in plan.owners.items() if gone in o and len(o) > 1}
    tolerant = {n: v for n, v in released_noise(plan, survivors_only).items() if n in covered}
    assert covered
    assert noise_is_as_charged(plan, tolerant)

    config = plan.privacy.config.model_copy(update={"tolerated_dropouts": 0})
    bare = dataclasses.replace(plan, privacy=dataclasses.replace(plan.privacy, config=config))
    weak = {n: v for n, v in released_noise(bare, survivors_only).items() if n in covered}
    assert not noise_is_as_charged(plan, weak)


def sensitivity(institution, clip=clip_and_sum_torch) -> float:
    """The largest L2 change, over all blocks, of the clipped sum when one record is taken out."""
    training = institution._training(initial_blocks(institution.plan.spec))
    terms = institution.plan.privacy
    groups = terms.groups(training.net.names)
    largest = 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(private_gradients, "clip_and_sum_torch", clip)
        # Dropout is drawn for each record by its place, so neighbours must not move the others.
        patch.setattr(
            private_gradients, "drop_modalities", lambda present, rate, generator: present
        )

        def total(rows):
            generator = rng.generator(0, "test")
            return private_gradients.clipped_gradient_sum(
                training, torch.tensor(rows), generator, terms.clip_norms, groups
            )[0].sums

        everyone = list(range(12))
        whole = total(everyone)
        for left_out in everyone:
            rest = total([r for r in everyone if r != left_out])
            squares = [np.sum((whole[n] - rest[n]).astype(np.float64) ** 2) for n in whole]
            largest = max(largest, math.sqrt(sum(squares)))
    return largest


def test_one_record_moves_the_sum_by_at_most_the_clip_norm(plan, institutions):
    clip_norm = plan.privacy.config.clip_norm
    assert sensitivity(institutions[0]) <= clip_norm * (1 + 1e-4)


def test_a_clip_that_misses_the_fusion_is_caught(plan, institutions):
    def without_fusion(gradients, clip_norms, groups):
        clipped = clip_and_sum_torch(
            {n: g for n, g in gradients.items() if n != "fusion"}, clip_norms, groups
        )
        bare = torch.cat([g.detach().flatten(1).sum(0) for g in gradients["fusion"]])
        return dataclasses.replace(clipped, sums=clipped.sums | {"fusion": bare.numpy()})

    assert sensitivity(institutions[0], without_fusion) > plan.privacy.config.clip_norm * (1 + 1e-4)


def batch_sizes(institution, rounds: int) -> np.ndarray:
    """Records that took part in each joint step."""
    sizes: list[int] = []
    original = private_gradients.clipped_gradient_sum
    training = institution._training(initial_blocks(institution.plan.spec))

    def counting(training, rows, *rest):
        sizes.append(len(rows))
        return original(training, rows[:1], *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(private_gradients, "clipped_gradient_sum", counting)
        for round in range(1, rounds + 1):
            plan = institution.plan
            private_gradients.joint_step(training, round, plan.privacy, plan.randomness)
    return np.array(sizes)


def is_poisson(sizes: np.ndarray, count: int, rate: float) -> bool:
    """Whether batch sizes vary as binomial ones do; shuffling gives them no variance at all."""
    expected = count * rate * (1 - rate)
    centred = abs(sizes.mean() - count * rate) < 5 * math.sqrt(expected / sizes.size)
    spread = np.var(sizes) / expected
    return bool(centred and abs(spread - 1) < 5 * math.sqrt(2 / sizes.size))


@pytest.fixture(scope="module")
def sampled():
    plan = plan_of(tiny("training.rounds=200", "privacy.sampling_rate=0.3", paradigm="fedfuse"))
    return Institution(plan, plan.participants[0], dataset_of(plan.experiment), NetCache(plan))


def test_batches_are_poisson_samples(sampled):
    assert is_poisson(batch_sizes(sampled, 200), sampled.participant.specimens, 0.3)


def test_a_sampler_that_shuffles_is_caught(sampled, monkeypatch):
    def shuffled(size, rate, draws, name, round, step=0):
        order = np.random.default_rng(round).permutation(size)
        return order[: round_half(size * rate)]

    def round_half(value):
        return int(value + 0.5)

    monkeypatch.setattr(private_gradients, "poisson_sample", shuffled)
    assert not is_poisson(batch_sizes(sampled, 200), sampled.participant.specimens, 0.3)


def play(institutions, plan, on_message=lambda step, name, data: None) -> Revealed:
    """Run one secure round in this process, showing every message that crosses the wire."""
    weights = initial_blocks(plan.spec)
    server = ParameterServer(plan, Checkpoint(0, weights))
    gathering, sides = MaskedGathering(server, 1), [InstitutionSide(i) for i in institutions]
    answer = Answer()
    for step in MaskedStep:
        messages = []
        for side in sides:
            data = side.take(step, Turn(1, answer, server.broadcast())).message
            on_message(step, side.institution.name, data)
            messages.append((side.institution.name, data))
        if step != MaskedStep.UNMASK:
            answer = gathering.close(step, messages)
    return gathering.reveal(messages)


def looks_uniform(values: np.ndarray) -> bool:
    """Chi-square over 16 bins of the words' top bits, at a level of about 1e-6."""
    counts = np.bincount(values, minlength=16)
    expected = values.size / 16
    return bool(np.sum((counts - expected) ** 2 / expected) < 60)


def top_bits(words: dict[str, np.ndarray], terms: RoundTerms) -> np.ndarray:
    tops = [w.astype(np.uint64) >> np.uint64(terms.bits(name) - 4) for name, w in words.items()]
    return np.concatenate(tops).astype(np.int64)


def test_the_server_sees_the_sum_and_never_one_update(plan, institutions, monkeypatch):
    sent: dict[str, dict[str, np.ndarray]] = {}
    masked: dict[str, bytes] = {}
    original = noisy_words

    def spying(sums, name, grid, draws):
        sent[name] = original(sums, name, grid, draws)
        return sent[name]

    monkeypatch.setattr(secure_round, "noisy_words", spying)
    revealed = play(
        institutions,
        plan,
        lambda step, name, data: masked.update({name: data}) if step == MaskedStep.MASK else None,
    )
    terms = round_terms(plan, block_sizes(plan.spec), 1, 0, NOTHING_RELEASED)
    for name, total in revealed.sums.items():
        owners = plan.owners[name]
        assert revealed.owners[name] == owners
        exact = sum(from_modular(sent[who][name], terms.bits(name)) for who in owners)
        np.testing.assert_array_equal(total, exact)
    for name, words in sent.items():
        body = envelope.unseal(masked[name], envelope.Kind.MASKED_INPUT, terms).body
        blocks = MaskedInput.from_bytes(body, terms, name).blocks
        on_wire = {
            b: unpack(data, terms.blocks[b].size, terms.bits(b)) for b, data in blocks.items()
        }
        assert set(on_wire) == set(words)
        assert looks_uniform(top_bits(on_wire, terms))
        # Negative control: before the masks they are far from uniform.
        assert not looks_uniform(top_bits(words, terms))
