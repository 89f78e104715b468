"""Which of the institutions that can be reached take part in a round.

- `all`: everybody.
- `random`: a part of all, uniformly without replacement (McMahan et al., 2017, FedAvg, arXiv
  1602.05629, Algorithm 1).
- `cyclic`: one institution of each domain, in the next round the next one (Sheller et al., 2020,
  Scientific Reports 10, 12598: cyclic institutional incremental learning).
- `incremental`: one institution of each domain after the other, each once (the same work:
  institutional incremental learning).
- `resources`: those whose expected round is short enough, and those whose turn it is (Nishio and
  Yonetani, 2019, FedCS, arXiv 1804.08333). FedCS orders uploads over one shared channel. Links are
  separate here, so taking all that fit the deadline takes as many as possible.

A choice is a pure function of the plan, the round, and who can be reached: a resumed run repeats it
without stored state. Each domain has its own order, since domains share the fusion only. If an
institution can't be reached in its turn, the next one of its domain takes part.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from fedfuse_ray import rng
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.plan.terms import PrivacyTerms
from fedfuse_ray.privacy.randomness import Randomness


def selected(plan: Plan, round: int, reached: Sequence[str]) -> tuple[str, ...]:
    """Return who takes part in a round.

    Args:
        plan: The federation's plan.
        round: From 1.
        reached: Who can be reached, in participants' order.

    Returns:
        Some of `reached`, in the same order; somebody wherever there is somebody.
    """
    config = plan.experiment.selection
    chosen = _SELECTIONS[config.kind](config, plan, round, reached)
    return tuple(name for name in reached if name in chosen)


def in_sample(terms: PrivacyTerms, draws: Randomness, institution: str, round: int) -> bool:
    """Whether the server's Poisson sample of a round, under `client`, holds an institution."""
    if terms.config.mode != "client":
        return True
    rate = terms.config.sampling_rate
    return rate >= 1 or draws.stream("institutions", institution, round).random() < rate


def _all(config: Any, plan: Plan, round: int, reached: Sequence[str]) -> Collection[str]:
    return reached


def _random(config: Any, plan: Plan, round: int, reached: Sequence[str]) -> Collection[str]:
    names = [*plan.by_name]
    size = max(1, int(config.fraction * len(names) + 0.5))
    order = rng.generator(plan.experiment.seed, "selection", round).permutation(len(names))
    return [names[index] for index in order if names[index] in reached][:size]


def _cyclic(config: Any, plan: Plan, round: int, reached: Sequence[str]) -> Collection[str]:
    turns = {domain: (round - 1) % len(line) for domain, line in plan.by_domain.items()}
    return _in_turn(plan, turns, reached)


def _incremental(config: Any, plan: Plan, round: int, reached: Sequence[str]) -> Collection[str]:
    rounds = plan.experiment.training.rounds
    turns = {d: (round - 1) * len(line) // rounds for d, line in plan.by_domain.items()}
    return _in_turn(plan, turns, reached)


def _in_turn(plan: Plan, turns: Mapping[str, int], reached: Sequence[str]) -> Collection[str]:
    """Return for each domain the first that can be reached, from its turn's on, round the line."""
    chosen: list[str] = []
    for domain, turn in turns.items():
        line = plan.by_domain[domain]
        chosen += [name for name in line[turn:] + line[:turn] if name in reached][:1]
    return chosen


def _resources(config: Any, plan: Plan, round: int, reached: Sequence[str]) -> Collection[str]:
    """Return those that are due, filled up with the fastest.

    Everybody is due once in `at_least_every` rounds, in participants' order, so that the slow ones
    do not all come in one round.
    """
    seconds = plan.expected_seconds
    due = [
        name
        for index, name in enumerate(plan.by_name)
        if name in reached and (round - 1 - index) % config.at_least_every == 0
    ]
    fastest = [n for n in sorted(reached, key=lambda n: seconds[n]) if n not in due]
    if config.count is not None:
        return due + fastest[: max(0, config.count - len(due))]
    # An estimate says too much rather than too little, so nobody may seem to fit; one still trains.
    fitting = [n for n in fastest if seconds[n] <= config.deadline_seconds]
    return due + fitting or fastest[:1]


_SELECTIONS: Mapping[str, Callable[[Any, Plan, int, Sequence[str]], Collection[str]]] = {
    "all": _all,
    "random": _random,
    "cyclic": _cyclic,
    "incremental": _incremental,
    "resources": _resources,
}
