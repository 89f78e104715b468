"""What participants report: small, and readable without torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from fedfuse_ray.blocks import Blocks
from fedfuse_ray.federation.metrics import Scores


@dataclass(frozen=True)
class TrainRecord:
    """What an institution reports of its training in a round.

    Attributes:
        institution: Its name.
        loss: Mean training loss over the round's steps.
        steps: Optimizer steps.
        uplink_bytes: Length of what it sent.
        downlink_bytes: Length of the blocks that it needed from the broadcast.
        seconds: Wall time of its training.
    """

    institution: str
    loss: float
    steps: int
    uplink_bytes: int
    downlink_bytes: int
    seconds: float


@dataclass(frozen=True)
class Trained:
    """An institution's answer to a round: the update, its own new state, and the record."""

    payload: bytes
    state: Blocks
    record: TrainRecord


@dataclass(frozen=True)
class SecureReply:
    """An institution's answer to one step of a secure round; the record comes with the update."""

    message: bytes
    record: TrainRecord | None


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


def with_uplink(
    records: Iterable[TrainRecord], uplink_bytes: Mapping[str, int]
) -> tuple[TrainRecord, ...]:
    """Return the records with all that their institutions sent in a round of several messages."""
    return tuple(replace(r, uplink_bytes=uplink_bytes[r.institution]) for r in records)
