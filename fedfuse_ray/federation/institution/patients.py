"""A patient's records as one unit of privacy: which of them count, and one gradient for all.

User-level sampling (DP-SGD-ULS of Charles et al., 2024, arXiv 2407.07737; federated averaging in
place of a step: McMahan et al., 2018, arXiv 1710.06963). Patients are sampled, at most
`records_per_patient` records of each take part, and their mean gradient, or its sum, is what is
clipped. Which records of a patient with more take part is drawn anew in each step from privacy's
own randomness.

Formal guarantees: whatever a patient's records hold, it adds one vector to a sum that is clipped
like a record's. Which records take part is drawn by place, so it does not depend on what any of
them holds. The cap limits work, and how unequal patients count; sensitivity comes from the clip.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from fedfuse_ray.config import PrivacyConfig
from fedfuse_ray.federation.institution.tensors import TensorData
from fedfuse_ray.privacy.mechanisms.sampling import expected_batch
from fedfuse_ray.privacy.randomness import Randomness

Indices = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Patients:
    """Who owns the records of a batch, in which a patient's records follow each other.

    Attributes:
        sizes: Number of records of each patient, in the batch's order, int64 [U]; none is 0.
        mean: Whether a patient's gradient is the mean of its records', not their sum.
    """

    sizes: torch.Tensor
    mean: bool

    def chunks(self, records: int) -> Iterator[tuple[slice, Patients]]:
        """Yield consecutive patients with at most so many records, or one that has more."""
        first = 0
        for last, stop in _cuts(self.sizes.tolist(), records):
            rows = slice(stop - int(self.sizes[first:last].sum()), stop)
            yield rows, Patients(self.sizes[first:last], self.mean)
            first = last

    def gradients(self, records: torch.Tensor) -> torch.Tensor:
        """Return each patient's gradient [U, ...] from its records' [B, ...], in their order."""
        reduced = "mean" if self.mean else "sum"
        sizes = self.sizes.to(records.device)
        # Segment by segment: the same bits on any device, which scattered additions don't promise.
        return torch.segment_reduce(records.contiguous(), reduced, lengths=sizes, axis=0)


def records_of(
    data: TensorData,
    chosen: Indices,
    config: PrivacyConfig,
    draws: Randomness,
    institution: str,
    round_: int,
    step: int = 0,
) -> tuple[torch.Tensor, Patients | None]:
    """Return the records of sampled units that take part in a step.

    Args:
        data: The institution's specimens.
        chosen: The sampled units, ascending.
        config: Caps a patient's records.
        draws: The run's randomness, given the incoming weights.
        institution: Part of the stream's name, with `round_` and `step`.
        round_: The communication round.
        step: The local step within the round.

    Returns:
        Rows, a patient's next to each other; and whose they are, None where each record is a unit.
    """
    if data.units is None:
        return torch.from_numpy(chosen), None
    units = data.units.numpy()
    keys = draws.stream("records of patients", institution, round_, step).random(len(units))
    order = np.lexsort((keys, units))
    starts = np.searchsorted(units[order], np.arange(data.unit_count))
    rank = np.arange(len(units)) - starts[units[order]]
    taken = order[(rank < config.records_per_patient) & np.isin(units[order], chosen)]
    rows = taken[np.lexsort((taken, units[taken]))]
    sizes = np.bincount(units[rows], minlength=data.unit_count)[chosen]
    return torch.from_numpy(rows), Patients(
        torch.from_numpy(sizes.astype(np.int64)), config.patient_gradient == "mean"
    )


def expected_records(data: TensorData, rate: float, config: PrivacyConfig) -> float:
    """Return how many records a step takes at most, on average, from public numbers alone."""
    if data.units is None:
        return expected_batch(rate, len(data))
    capped = min(len(data), config.records_per_patient * data.unit_count)
    return expected_batch(rate, capped)


def _cuts(sizes: list[int], most: int) -> Iterator[tuple[int, int]]:
    """Yield (patients, records) before each cut, and at the end."""
    held = total = 0
    for index, size in enumerate(sizes):
        if held and held + size > most:
            yield index, total
            held = 0
        held, total = held + size, total + size
    if held:
        yield len(sizes), total
