"""What participants report: small, and readable without torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from fedfuse_ray.blocks import Blocks
from fedfuse_ray.federation.messages.metrics import Scores
from fedfuse_ray.federation.messages.updates import Kept
from fedfuse_ray.network import Flight, Timing

Payload = TypeVar("Payload")


@dataclass(frozen=True)
class TrainRecord:
    """What an institution reports of its training in a round.

    Attributes:
        institution: Its name.
        loss: Mean training loss over the round's steps; None where it is private.
        steps: Optimizer steps.
        uplink_bytes: Length of what it sent.
        downlink_bytes: Length of what it was sent.
        seconds: Wall time of its training.
        timing: The same round on the virtual clock.
        late: Its update came after the deadline, so it was not sent.
        payload_bytes: The encoded update alone, without headers and protocol.
        bits_per_parameter: The encoded length by block.
        staleness: Server steps since it fetched the model.
        started: When it fetched the model, on the virtual clock; None is the round's start.
    """

    institution: str
    loss: float | None
    steps: int
    uplink_bytes: int
    downlink_bytes: int
    seconds: float
    timing: Timing
    late: bool = False
    payload_bytes: int = 0
    bits_per_parameter: Mapping[str, float] = field(default_factory=dict)
    staleness: int = 0
    started: float | None = None


@dataclass(frozen=True)
class Reply:
    """An institution's answer to one step of a round.

    Attributes:
        message: What it sends; None where it has nothing to say, or was late.
        record: With the step that sends the update.
        kept: What it keeps for its next round; None leaves that as it is.
    """

    message: bytes | None = None
    record: TrainRecord | None = None
    kept: Kept | None = None


@dataclass(frozen=True)
class Carried(Generic[Payload]):
    """An update on its way to an asynchronous server.

    Attributes:
        flight: When it was begun, and when it arrives.
        record: What its institution reported.
        payload: The encoded update, or a reference to what holds it.
    """

    flight: Flight
    record: TrainRecord
    payload: Payload


@dataclass(frozen=True)
class Alone:
    """A participant that trained without a federation.

    Attributes:
        scores: On its domain's whole test set, at its best epoch.
        losses: Training loss of each epoch.
        validation: Validation accuracy of each epoch.
        best_epoch: The epoch whose weights were scored, from 1.
        weights: Those weights.
        seconds: Wall time.
    """

    scores: Scores
    losses: tuple[float, ...]
    validation: tuple[float, ...]
    best_epoch: int
    weights: Blocks
    seconds: float


def nothing_trained(institution: str) -> TrainRecord:
    """Return the record of who took part in a round that was lost before anybody trained."""
    return TrainRecord(institution, 0.0, 0, 0, 0, 0.0, Timing(0.0, 0.0, 0.0))


def with_payload(
    record: TrainRecord, lengths: Mapping[str, int], sizes: Mapping[str, int]
) -> TrainRecord:
    """Return the record with the lengths of its encoded blocks.

    Args:
        record: The record.
        lengths: Bytes by block.
        sizes: Parameters by block.
    """
    bits = {name: 8 * length / sizes[name] for name, length in lengths.items()}
    return replace(record, payload_bytes=sum(lengths.values()), bits_per_parameter=bits)


def with_traffic(
    records: Iterable[TrainRecord], sent: Mapping[str, int], received: Mapping[str, int]
) -> tuple[TrainRecord, ...]:
    """Return the records with all that crossed the network in a round of several messages.

    Args:
        records: With what each was sent at the round's start.
        sent: All bytes that each institution sent.
        received: Bytes of the answers to it.
    """
    return tuple(
        replace(
            r,
            uplink_bytes=sent.get(r.institution, 0),
            downlink_bytes=r.downlink_bytes + received.get(r.institution, 0),
        )
        for r in records
    )
