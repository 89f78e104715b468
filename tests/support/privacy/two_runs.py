"""What two runs release of the same data, seen from the weights that they publish."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from fedfuse_ray.blocks import Blocks
from fedfuse_ray.data.dataset import Dataset
from fedfuse_ray.federation.institution import private_gradients
from fedfuse_ray.federation.institution.institution import Institution, NetCache
from fedfuse_ray.federation.messages import transforms
from fedfuse_ray.federation.messages.downlink import Broadcast
from fedfuse_ray.federation.modes import integers
from fedfuse_ray.federation.modes.grid import grid_of
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.rounds.serial import SerialExecutor
from fedfuse_ray.privacy.mechanisms.integers import INTEGER_NOISE
from fedfuse_ray.privacy.mechanisms.sampling import expected_batch
from fedfuse_ray.privacy.randomness import Randomness

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Release:
    """One round of a run.

    Attributes:
        told: What the published weights tell of it: the step, by block.
        exact: The step without noise.
        stds: The noise's standard deviation on the step, as it is charged, by block.
    """

    told: Blocks
    exact: Blocks
    stds: dict[str, float]

    @property
    def blocks(self) -> list[str]:
        """The blocks that are trained."""
        return [name for name, step in self.told.items() if step.any()]


def released(plan: Plan, dataset: Dataset, round: int = 1, epoch: int = 0) -> Release:
    """Run a plan up to a round, in this process, and return what that round releases."""
    before, told = _step(plan, dataset.folder, round, epoch)
    rate = plan.experiment.strategy.server_learning_rate
    if plan.terms.distributed:
        exact = _gradients(plan, dataset, round, before)
    else:
        with _silence():
            exact = _step(plan, dataset.folder, round, epoch)[1]
    exact = {name: np.float32(rate) * step for name, step in exact.items()}
    stds = {name: rate * _std(plan, name, round) for name in plan.owners}
    return Release(told, exact, stds)


def _step(plan: Plan, folder: Path, round: int, epoch: int) -> tuple[Blocks, Blocks]:
    """Return the weights before a round, and how it moved them."""
    executor = SerialExecutor()
    executor.start(plan, folder)
    executor.load(None)
    for number in range(1, round):
        executor.train(number)
    before = executor.weights
    executor.train(round, epoch=epoch)
    return before, {name: after - before[name] for name, after in executor.weights.items()}


def _gradients(plan: Plan, dataset: Dataset, round: int, weights: Blocks) -> Blocks:
    """Return the mean of clipped gradients, from what institutions send before noise."""
    nets, grid = NetCache(plan), grid_of(plan, round)
    sums: Blocks = {}
    for participant in plan.participants:
        institution = Institution(plan, participant, dataset, nets)
        received = institution.receive(Broadcast(round, weights, {}), behind=False)
        draws = plan.randomness.given(received.digest)
        for name, part in institution.joint_step(round, received, draws).update.weights.items():
            sums[name] = sums.get(name, np.zeros_like(part)) + part
    batches = {name: grid.expected_batch(plan.owners[name]) for name in sums}
    return {name: total / np.float32(batches[name]) for name, total in sums.items()}


def _std(plan: Plan, block: str, round: int) -> float:
    """Return the standard deviation of the noise on a block's step, from the documented sums."""
    terms, owners = plan.terms, plan.owners[block]
    clip = terms.config.clip_norm
    if terms.distributed:
        grid = grid_of(plan, round)
        return grid.share_std(block) * math.sqrt(len(owners)) / grid.expected_batch(owners)
    if terms.config.mode == "client":
        return terms.common_sigma(round) * clip / len(owners)
    if terms.config.mode == "local-update":
        return terms.common_sigma(round) * clip / math.sqrt(len(owners))
    rate = plan.experiment.training.learning_rate
    return math.hypot(
        *(
            plan.fractions[block][who] * rate * terms.sigma(who, round) * clip
            / expected_batch(terms.releases[who].sampling_rate, plan.by_name[who].specimens)
            for who in owners
        )
    )  # fmt: skip


@contextmanager
def _silence() -> Iterator[None]:
    """Take all noise away."""

    def nothing(size: int, std: float, generator: np.random.Generator) -> npt.NDArray[np.float32]:
        return np.zeros(size, np.float32)

    with pytest.MonkeyPatch.context() as patch:
        for module in (private_gradients, transforms):
            patch.setattr(module, "gaussian_noise", nothing)
        patch.setattr(integers, "rounded_normal", lambda centres, *_: np.rint(centres).astype(int))
        patch.setitem(INTEGER_NOISE, "gaussian", lambda size, *_: np.zeros(size, np.int64))
        yield


def named_by_use_alone(patch: pytest.MonkeyPatch) -> None:
    """Name streams of noise and samples as before: whatever is run and whatever they hide."""
    original = Randomness.stream

    def stream(
        draws: Randomness, purpose: str, *keys: str | int, message: bytes = b""
    ) -> np.random.Generator:
        if purpose in ("identity", "secure aggregation"):
            return original(draws, purpose, *keys, message=message)
        return original(Randomness(bytes(32)), purpose, *keys)

    patch.setattr(Randomness, "stream", stream)


def _standardised(release: Release) -> Floats:
    noise = [
        (release.told[n].astype(float) - release.exact[n]) / release.stds[n] for n in release.blocks
    ]
    return np.concatenate(noise)


def within(size: int) -> float:
    """Return five standard deviations of the mean of so many squared normal variates."""
    return 5 * math.sqrt(2 / size)


def noises_are_independent(one: Release, other: Release) -> bool:
    """Whether no linear combination of two releases has less noise than of independent ones."""
    assert one.blocks == other.blocks
    first, second = _standardised(one), _standardised(other)
    angles = np.linspace(0, math.pi, 721)
    left = [np.mean((math.cos(a) * first + math.sin(a) * second) ** 2) for a in angles]
    return bool(min(left) > 1 - within(first.size))


def best_estimate(one: Release, other: Release) -> tuple[float, int]:
    """Return the least error of a U1 + (1 - a) U2 as an estimate of the sum that both protect.

    It is the mean square over that of the best combination of two independent releases, each
    weighted by the inverse of its variance; with it, over how many coordinates.
    """
    exact = {n: v / np.float64(one.stds[n]) for n, v in one.exact.items()}
    assert all(np.allclose(one.exact[n], other.exact[n], atol=1e-6) for n in one.blocks)
    ratio = float(np.median([other.stds[n] / one.stds[n] for n in one.blocks]))
    pooled = 1 / (1 + ratio**-2)
    first = np.concatenate([one.told[n] / one.stds[n] - exact[n] for n in one.blocks])
    second = np.concatenate([other.told[n] / one.stds[n] - exact[n] for n in one.blocks])
    weights = [*np.linspace(-50, 50, 4001), *([ratio / (ratio - 1)] if ratio != 1 else [])]
    return min(float(np.mean((a * first + (1 - a) * second) ** 2)) for a in weights) / pooled, (
        first.size
    )
