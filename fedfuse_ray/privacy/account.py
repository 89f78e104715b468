"""The `account` command's answers: noise to epsilon, epsilon to noise, epsilon over rounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedfuse_ray.errors import InputError
from fedfuse_ray.privacy.accounting.calibration import calibrate_noise_multiplier
from fedfuse_ray.privacy.accounting.epsilon import epsilon
from fedfuse_ray.privacy.accounting.ledger import PrivacyEvent
from fedfuse_ray.privacy.mechanisms.sampling import sampling_rate, steps_per_epoch


@dataclass(frozen=True, slots=True)
class Schedule:
    """How often a record may take part, and with which probability; `pld` or `rdp` accounts it."""

    sampling_rate: float
    steps_per_round: int
    rounds: int
    delta: float = 1e-5
    accountant: str = "pld"

    @property
    def steps(self) -> int:
        """Releases in all."""
        return self.steps_per_round * self.rounds


def schedule(
    records: int, batch_size: int, rounds: int, local_epochs: int = 1, delta: float = 1e-5
) -> Schedule:
    """Return the schedule of DP-SGD at one institution; every epoch rounds its steps up.

    Raises:
        InputError: A count below 1.

    >>> schedule(records=1650, batch_size=64, rounds=200, local_epochs=10).steps
    52000
    """
    if rounds < 1 or local_epochs < 1:
        raise InputError("rounds", (rounds, local_epochs), "rounds and local epochs are 1 or more")
    steps = steps_per_epoch(batch_size, records) * local_epochs
    return Schedule(sampling_rate(batch_size, records), steps, rounds, delta)


PAPER_NOISE_MULTIPLIER = 0.8
PAPER_CLAIMED_EPSILON = 1.0
PAPER_SCHEDULE = schedule(records=1650, batch_size=64, rounds=200, local_epochs=10)
"""The paper's recipe for a site of 1,650 images; its clip norm of 1.5 does not enter epsilon."""


def epsilon_after(plan: Schedule, noise_multiplier: float, rounds: int | None = None) -> float:
    """Return epsilon after `rounds` rounds (all of them by default)."""
    done = plan.rounds if rounds is None else rounds
    if done == 0:
        return 0.0
    count = plan.steps_per_round * done
    event = PrivacyEvent(0, "any", (), "gaussian", noise_multiplier, plan.sampling_rate, count)
    return epsilon([event], plan.delta, plan.accountant)


def group_after(plan: Schedule, noise_multiplier: float, size: int) -> float:
    """Return epsilon for `size` units of one institution together, such as a patient's records.

    It is computed by loss distributions, whatever accounts the single unit.
    """
    from fedfuse_ray.privacy.accounting.groups import group_epsilon

    rate, count = plan.sampling_rate, plan.steps
    event = PrivacyEvent(0, "any", (), "gaussian", noise_multiplier, rate, count)
    return group_epsilon([([event], size)], plan.delta)


def noise_for(plan: Schedule, target_epsilon: float) -> float:
    """Return the noise multiplier that keeps the whole schedule within `target_epsilon`."""
    given = target_epsilon, plan.delta, plan.sampling_rate, plan.steps
    return calibrate_noise_multiplier(*given, accountant=plan.accountant)


@dataclass(frozen=True, slots=True)
class Answer:
    """One row of the table: a noise multiplier, and the epsilon that it really gives."""

    noise_multiplier: float
    epsilon: float
    sampling_rate: float
    steps: int
    delta: float


def answer(
    plan: Schedule, noise_multiplier: float | None = None, target_epsilon: float | None = None
) -> Answer:
    """Answer either way: give the noise multiplier or the epsilon.

    Raises:
        InputError: Both or neither were given, or no finite epsilon holds at this delta.
    """
    if (noise_multiplier is None) == (target_epsilon is None):
        given = {"noise_multiplier": noise_multiplier, "epsilon": target_epsilon}
        raise InputError("account", given, "give either the noise multiplier or the epsilon")
    sigma = noise_for(plan, target_epsilon) if target_epsilon is not None else noise_multiplier
    if sigma is None or not 0.0 < sigma < math.inf:
        raise InputError("privacy.noise_multiplier", noise_multiplier, "use a positive number")
    spent = epsilon_after(plan, sigma)
    if not math.isfinite(spent):
        how = "loss distributions resolve" if plan.accountant == "pld" else "Renyi orders reach"
        other = "a greater delta, more noise" + (", or rdp" if plan.accountant == "pld" else "")
        raise InputError("delta", f"{plan.delta:g}", f"is less than what {how} here; use {other}")
    return Answer(sigma, spent, plan.sampling_rate, plan.steps, plan.delta)


@dataclass(frozen=True, slots=True)
class PaperRecipe:
    """The paper's recipe beside what it costs.

    Attributes:
        claimed_epsilon: What the paper states for the whole training.
        true_epsilon: What its noise, batches and steps give.
        one_step_epsilon: What a single step already costs.
        needed_noise_multiplier: The noise that would give the claimed epsilon.
    """

    claimed_epsilon: float
    true_epsilon: float
    one_step_epsilon: float
    needed_noise_multiplier: float

    def __str__(self) -> str:
        plan = PAPER_SCHEDULE
        return (
            f"The paper's recipe (sigma {PAPER_NOISE_MULTIPLIER:g}, C 1.5, N 1650, batch 64, "
            f"{plan.rounds} rounds x 10 local epochs = {plan.steps} steps, delta {plan.delta:g}): "
            f"true epsilon {self.true_epsilon:.1f}, not the {self.claimed_epsilon:.1f} claimed. "
            f"One step alone costs {self.one_step_epsilon:.2f}; epsilon "
            f"{self.claimed_epsilon:g} needs sigma {self.needed_noise_multiplier:.1f}."
        )


def paper_recipe() -> PaperRecipe:
    """Account the paper's recipe."""
    plan = PAPER_SCHEDULE
    one_step = Schedule(plan.sampling_rate, 1, 1, plan.delta)
    return PaperRecipe(
        PAPER_CLAIMED_EPSILON,
        epsilon_after(plan, PAPER_NOISE_MULTIPLIER),
        epsilon_after(one_step, PAPER_NOISE_MULTIPLIER),
        noise_for(plan, PAPER_CLAIMED_EPSILON),
    )


def epsilon_curve(
    plan: Schedule, noise_multiplier: float, points: int = 40
) -> tuple[list[int], list[float]]:
    """Return rounds, evenly spaced from 0 to the last, and the epsilon after each."""
    count = min(max(1, points), plan.rounds)
    rounds = [0, *(math.ceil(plan.rounds * i / count) for i in range(1, count + 1))]
    return rounds, [epsilon_after(plan, noise_multiplier, done) for done in rounds]


def curve_figure(curves: Sequence[tuple[str, tuple[list[int], list[float]]]]) -> dict[str, object]:
    """Return a plotly figure, as plain JSON data, of named `epsilon_curve`s."""
    return {
        "data": [
            {"type": "scatter", "mode": "lines", "name": name, "x": rounds, "y": epsilons}
            for name, (rounds, epsilons) in curves
        ],
        "layout": {
            "title": {"text": "Privacy spent over rounds"},
            "xaxis": {"title": {"text": "round"}, "rangemode": "tozero"},
            "yaxis": {"title": {"text": "epsilon"}, "rangemode": "tozero"},
        },
    }
