"""Whether a ledger charges what was to be charged: every release, with its noise, rate and count.

What is expected is computed by somebody else, from a configuration and public sizes. Here is only
what the two may differ in: a round whose noise was drawn anew is charged again, and an adaptive
schedule chooses each round's factor on the noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from fedfuse_ray.errors import FedfuseError
from fedfuse_ray.privacy.accounting.adaptive_budget import cost
from fedfuse_ray.privacy.accounting.ledger import PrivacyEvent

_RELATIVE = 1e-6
"""How far a number may differ that another version of the accountant calibrates again."""
_FIELDS = (
    *("mechanism", "unit", "count", "blocks", "sampling_rate", "noise_multiplier"),
    *("rho", "xi", "ripple"),
)

Key = tuple[int, str]
"""Round and institution."""
Events = dict[Key, list[PrivacyEvent]]


@dataclass(frozen=True)
class Latitude:
    """In what a ledger may differ from what is expected.

    Attributes:
        again: Whether a round may be charged more than once: its noise was drawn anew.
        spread: How far a round's factor on the noise may lie from 1; None for a fixed schedule.
        rounds: T, the rounds of the run, which bound what all factors together may cost.
        more_noise: Whether there may be more noise than expected.
        unknown: Fields that nothing is known of.
    """

    again: bool = False
    spread: float | None = None
    rounds: int = 0
    more_noise: bool = False
    unknown: frozenset[str] = frozenset()

    @property
    def of_scores(self) -> Latitude:
        """The same for scores, whose noise no schedule scales."""
        unknown = self.unknown | ({"noise_multiplier"} if "rho" in self.unknown else set())
        return Latitude(again=self.again, more_noise=self.more_noise, unknown=unknown)

    @property
    def least(self) -> float:
        """The smallest factor on the noise."""
        return 1.0 / self.spread if self.spread else 1.0

    @property
    def most(self) -> float:
        """The largest factor on the noise."""
        return math.inf if self.more_noise else self.spread or 1.0


def match(
    ledger: Iterable[PrivacyEvent], expected: Iterable[PrivacyEvent], allowed: Latitude
) -> dict[int, int]:
    """Compare a ledger with what was to be charged.

    Args:
        ledger: What was charged.
        expected: Each release once, its noise before an adaptive schedule's factor.
        allowed: In what they may differ.

    Returns:
        How often each round was charged, of those that were charged more than once.

    Raises:
        FedfuseError: Names the institution, the round, and both values of what differs first.
    """
    found, wanted = _grouped(ledger), _grouped(expected)
    rounds: dict[int, dict[str, int]] = {}
    factors: dict[int, float] = {}
    for (number, who), events in wanted.items():
        own = found.pop((number, who), [])
        times = rounds.setdefault(number, {})
        times[who] = _times(own, events, allowed.again)
        _check_times(number, times, who)
        factor = _factor(own, events, allowed)
        if allowed.spread is not None:
            _check_common(factors.setdefault(number, factor), factor, number, who)
        for event in events:
            scaled = replace(event, noise_multiplier=event.noise_multiplier * factor)
            for charged in (e for e in own if e.observer == event.observer):
                _compare(charged, scaled, allowed.unknown)
    for events in found.values():
        raise FedfuseError(f"{_where(events[0])}: {_said(events[0])} is charged, nothing expected")
    _check_cost(factors, allowed)
    return {number: max(t.values()) for number, t in rounds.items() if max(t.values()) > 1}


def _grouped(events: Iterable[PrivacyEvent]) -> Events:
    groups: Events = {}
    for event in events:
        groups.setdefault((event.round, event.institution), []).append(event)
    return groups


def _where(event: PrivacyEvent) -> str:
    return f"{event.institution}, round {event.round}"


def _said(event: PrivacyEvent) -> str:
    seen = f", seen on the {event.observer}" if event.observer else ""
    return (
        f"a {event.mechanism} release of noise_multiplier {event.noise_multiplier:.6g}, "
        f"sampling_rate {event.sampling_rate:.6g}, count {event.count}{seen}"
    )


def _times(own: Sequence[PrivacyEvent], events: Sequence[PrivacyEvent], again: bool) -> int:
    """Return how often an institution's releases of a round were charged: all of them as often."""
    counts = {e.observer: sum(c.observer == e.observer for c in own) for e in events}
    for event in events:
        if not counts[event.observer]:
            raise FedfuseError(f"{_where(event)}: nothing is charged, {_said(event)} is expected")
        if counts[event.observer] != counts[events[0].observer]:
            raise FedfuseError(
                f"{_where(event)}: charged {counts[event.observer]} times on the {event.observer}, "
                f"and {counts[events[0].observer]} times on the {events[0].observer}"
            )
    for charged in own:
        if charged.observer not in counts:
            raise FedfuseError(f"{_where(charged)}: {_said(charged)} is charged, nothing expected")
    times = counts[events[0].observer]
    if times > 1 and not again:
        raise FedfuseError(f"{_where(events[0])}: charged {times} times, expected once")
    return times


def _check_times(number: int, times: Mapping[str, int], who: str) -> None:
    first = next(iter(times))
    if times[who] != times[first]:
        raise FedfuseError(
            f"{who}, round {number}: charged {times[who]} times, {first} {times[first]} times; "
            "noise is drawn anew for all"
        )


def _factor(
    own: Sequence[PrivacyEvent], events: Sequence[PrivacyEvent], allowed: Latitude
) -> float:
    """Return the factor on an institution's noise in a round, as the ledger has it."""
    event = events[0]
    if allowed.least == allowed.most or "noise_multiplier" in allowed.unknown:
        return 1.0
    charged = next(e for e in own if e.observer == event.observer)
    factor = charged.noise_multiplier / event.noise_multiplier
    if not allowed.least * (1.0 - _RELATIVE) <= factor <= allowed.most * (1.0 + _RELATIVE):
        least = event.noise_multiplier * allowed.least
        most = event.noise_multiplier * allowed.most
        raise FedfuseError(
            f"{_where(event)}: noise_multiplier is {charged.noise_multiplier:.6g}, expected "
            f"{least:.6g} to {most:.6g}"
        )
    return factor


def _check_common(first: float, factor: float, number: int, who: str) -> None:
    if not math.isclose(first, factor, rel_tol=_RELATIVE):
        raise FedfuseError(
            f"{who}, round {number}: the factor on its noise is {factor:.6g}, others' {first:.6g}"
        )


def _check_cost(factors: Mapping[int, float], allowed: Latitude) -> None:
    spent = cost(list(factors.values()))
    if allowed.spread is not None and spent > allowed.rounds * (1.0 + _RELATIVE):
        last = max(factors)
        raise FedfuseError(
            f"all institutions, round {last}: the adaptive schedule has cost {spent:.6g} rounds of "
            f"constant noise, expected {allowed.rounds} at most"
        )


def _compare(charged: PrivacyEvent, expected: PrivacyEvent, unknown: frozenset[str]) -> None:
    for name in _FIELDS:
        found, wanted = getattr(charged, name), getattr(expected, name)
        if name in unknown or found == wanted:
            continue
        numbers = isinstance(found, float) and isinstance(wanted, float)
        if numbers and math.isclose(found, wanted, rel_tol=_RELATIVE):
            continue
        shown = [f"{v:.6g}" if isinstance(v, float) else v for v in (found, wanted)]
        raise FedfuseError(f"{_where(charged)}: {name} is {shown[0]}, expected {shown[1]}")
