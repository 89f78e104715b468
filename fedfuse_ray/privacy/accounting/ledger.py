"""The privacy ledger: every release as an immutable event, kept as JSON lines.

Privacy is data here, as in Google's `dp_accounting`: mechanisms append events, and accountants
interpret them later. Nothing is ever removed, so the epsilon of a finished run can be recomputed
from `privacy_ledger.jsonl` alone. In the file each event is chained to those before it (`chain`).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from fedfuse_ray.errors import InputError
from fedfuse_ray.files import storing, write_text
from fedfuse_ray.privacy.accounting.chain import Chain

MECHANISMS = ("gaussian", "skellam", "discrete-gaussian")
UNITS = ("record", "patient", "institution")
OBSERVERS = ("uplink", "downlink")
"""Who sees only one of two ways: an institution's uploads, or what is broadcast."""
RECORDS = ("test",)
"""Which of an institution's records a release is of, where not of those that it trains on."""
_CHAIN = "chain"
"""What a line of the file holds beside its event."""


@dataclass(frozen=True, slots=True)
class PrivacyEvent:
    """One release that depends on an institution's data.

    Blocks that are clipped jointly, or by groups over the same sampled records, are one release:
    one event with the joint noise multiplier.

    Args:
        round: The communication round.
        institution: Whose data the release depends on.
        blocks: The model blocks released.
        mechanism: `gaussian`, `skellam` or `discrete-gaussian`.
        noise_multiplier: sigma, standard deviation over sensitivity: over all that one unit adds,
            at however many institutions it may stand.
        sampling_rate: Poisson probability that a unit takes part.
        count: How often the same release was made, as local steps.
        unit: One of `UNITS`.
        rho: Discrete mechanisms only: the release's Renyi divergence of order alpha is at most
            xi + rho * alpha (concentrated DP).
        xi: See `rho`.
        ripple: Of the Gaussian under secure aggregation: gamma, how far the logarithm of the law of
            what is sent may lie from that of a Gaussian release that is rounded afterwards
            (docs/proofs.md).
        observer: Who sees the release, one of `OBSERVERS`; null is everybody. What two observers
            see is not composed.
        records: Of which records the release is, one of `RECORDS`; null is those trained on. No
            record is of both kinds, so releases of the two are not composed.

    Raises:
        InputError: A field that no accountant could interpret.
    """

    round: int
    institution: str
    blocks: tuple[str, ...]
    mechanism: str
    noise_multiplier: float
    sampling_rate: float = 1.0
    count: int = 1
    unit: str = "record"
    rho: float | None = None
    xi: float | None = None
    observer: str | None = None
    ripple: float | None = None
    records: str | None = None

    def __post_init__(self) -> None:
        discrete = self.mechanism != "gaussian"
        rules: tuple[tuple[str, bool, str], ...] = (
            ("round", self.round >= 0, "count rounds from 0"),
            ("mechanism", self.mechanism in MECHANISMS, f"the accountant knows {MECHANISMS}"),
            ("noise_multiplier", 0.0 < self.noise_multiplier < math.inf, "use a positive number"),
            ("sampling_rate", 0.0 < self.sampling_rate <= 1.0, "use a probability above 0"),
            ("count", self.count >= 1, "an event happened at least once"),
            ("unit", self.unit in UNITS, f"use one of {UNITS}"),
            ("observer", self.observer in (None, *OBSERVERS), f"use one of {OBSERVERS}, or none"),
            ("records", self.records in (None, *RECORDS), f"use one of {RECORDS}, or none"),
            ("rho", _given(self.rho) == discrete, "give it for discrete mechanisms, and only then"),
            ("xi", _given(self.xi) == discrete, "give it for discrete mechanisms, and only then"),
            (
                "ripple",
                self.ripple is None or (_given(self.ripple) and not discrete),
                "give a number from 0, for the Gaussian only",
            ),
        )
        for name, holds, remedy in rules:
            if not holds:
                raise InputError(f"privacy_ledger.{name}", getattr(self, name), remedy)


def _given(value: float | None) -> bool:
    return value is not None and 0.0 <= value < math.inf


@dataclass(frozen=True, slots=True)
class Ledger:
    """An append-only sequence of events; `extend` returns a longer ledger."""

    events: tuple[PrivacyEvent, ...] = ()

    def __iter__(self) -> Iterator[PrivacyEvent]:
        return iter(self.events)

    def __len__(self) -> int:
        return len(self.events)

    def extend(self, events: Iterable[PrivacyEvent]) -> Ledger:
        """Return this ledger with `events` appended."""
        return Ledger((*self.events, *events))

    def institutions(self) -> tuple[str, ...]:
        """Return the institutions in the ledger, sorted."""
        return tuple(sorted({event.institution for event in self.events}))

    def of(self, institution: str) -> tuple[PrivacyEvent, ...]:
        """Return one institution's events, in order."""
        return tuple(event for event in self.events if event.institution == institution)

    def write(self, path: Path) -> None:
        """Write the whole ledger as chained JSON lines, atomically."""
        lines, _ = Chain().extend(_content(event) for event in self.events)
        write_text(path, "".join(lines))


def append_events(path: Path, events: Iterable[PrivacyEvent], chain: Chain) -> Chain:
    """Append events to a ledger whose last entry is `chain`, and flush them to the disk.

    Returns:
        The chain with the events.

    Raises:
        StorageError: They are not in it, or the last of them in part; nothing may be released.
    """
    lines, longer = chain.extend(_content(event) for event in events)
    with storing(path), path.open("a", encoding="utf-8") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())
    return longer


def read_ledger(path: Path) -> Ledger:
    """Read a JSON-lines ledger. The chain is not checked; `python -m fedfuse_ray verify` does.

    Raises:
        InputError: A line that is no event; the message names the line.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    return Ledger(tuple(_event(line, f"{path}:{n}") for n, line in enumerate(lines, 1)))


def _content(event: PrivacyEvent) -> str:
    row = {name: value for name, value in asdict(event).items() if value is not None}
    return json.dumps(row, allow_nan=False)


def _event(line: str, where: str) -> PrivacyEvent:
    names = {field.name for field in fields(PrivacyEvent)}
    try:
        row = json.loads(line)
        row.pop(_CHAIN, None)
        if unknown := set(row) - names:
            raise InputError(where, sorted(unknown)[0], f"an event has the fields {sorted(names)}")
        return PrivacyEvent(**{**row, "blocks": tuple(row["blocks"])})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(where, line, f"not a privacy event ({error})") from None
    except InputError as error:
        raise InputError(f"{where} {error.field}", error.value, error.remedy) from None


def to_dp_event(events: Iterable[PrivacyEvent]) -> object:
    """Return the events as one `dp_accounting.ComposedDpEvent`, for any outside accountant.

    Equal releases are folded into `SelfComposedDpEvent`s. Discrete mechanisms become `ZCDpEvent`s
    with their proved terms. The ripple has no such event: where (epsilon, delta) is what an
    accountant gives, the whole costs (epsilon + 2 gamma, delta exp(gamma)), gamma being the sum of
    ripples.

    Raises:
        InputError: Two observers see different events, or events are of different records; give
            those of one.
    """
    import dp_accounting

    events = tuple(events)
    if len(observers := sorted({e.observer for e in events if e.observer is not None})) > 1:
        raise InputError("privacy_ledger.observer", observers, "give the events of one of them")
    if len(kinds := sorted({str(e.records) for e in events})) > 1:
        raise InputError("privacy_ledger.records", kinds, "give the events of one of them")
    counts: dict[tuple[float | None, ...], int] = {}
    for event in events:
        gaussian = event.mechanism == "gaussian"
        sigma = event.noise_multiplier if gaussian else None
        key = (sigma, event.rho, event.xi, event.sampling_rate)
        counts[key] = counts.get(key, 0) + event.count
    composed: list[dp_accounting.DpEvent] = []
    for (sigma, rho, xi, rate), count in counts.items():
        release = (
            dp_accounting.GaussianDpEvent(sigma)
            if sigma is not None
            else dp_accounting.dp_event.ZCDpEvent(rho, xi)
        )
        if rate != 1.0:
            release = dp_accounting.PoissonSampledDpEvent(rate, release)
        composed.append(dp_accounting.SelfComposedDpEvent(release, count))
    return dp_accounting.ComposedDpEvent(composed)
