"""The executor of a sweep's trials: one after the other in one process, over the same specimens.

Trials of a sweep mostly share data and frozen encoders. Reading specimens and computing frozen
features is then the same work each time, so the next trial takes over what the last one made.
Nothing else survives: networks, optimizers, ledgers and random streams are built anew.
"""

from __future__ import annotations

from pathlib import Path

from fedfuse_ray.federation.institution.institution import Institution
from fedfuse_ray.federation.institution.tensors import TensorData
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.rounds.serial import SerialExecutor

_Key = tuple[object, ...]


class ReusingExecutor(SerialExecutor):
    """A `SerialExecutor` that may be started again; equal data and features are kept.

    Attributes:
        reused: Sets of specimens that were taken over from an earlier trial, so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reused = 0
        self._made: dict[_Key, dict[str, TensorData]] = {}
        self._keys: dict[str, _Key] = {}

    def start(self, plan: Plan, dataset: Path) -> None:
        """Create the participants, with what an earlier trial made of the same specimens."""
        super().start(plan, dataset)
        kept, self._made = self._made, {}
        for institution in self.institutions:
            key = _key(plan, institution, dataset)
            self._keys[institution.participant.name] = key
            # Reading is lazy: what is already there is not read again.
            vars(institution).update(kept.get(key, {}))
            self.reused += len(kept.get(key, {}))

    def close(self) -> None:
        """Drop the participants, but not what they made of their specimens."""
        for institution in self.institutions:
            made = {n: v for n, v in vars(institution).items() if isinstance(v, TensorData)}
            self._made[self._keys[institution.participant.name]] = made
        super().close()


def _key(plan: Plan, institution: Institution, dataset: Path) -> _Key:
    """Return what decides an institution's specimens as tensors: which, and the frozen encoders.

    A dataset's folder is named after its content. Test specimens are seen by the default encoders
    (tier ""), its own by those of its tier.
    """
    participant, spec = institution.participant, plan.spec
    encoders = tuple(
        spec.config.encoder_for(modality, tier).model_dump_json()
        if spec.frozen(modality, tier)
        else None
        for tier in dict.fromkeys(("", participant.tier))
        for modality in (spec.domains[participant.domain] if not tier else participant.modalities)
    )
    frozen = any(encoders)
    return (
        str(dataset),
        (
            participant.name,
            participant.members,
            participant.tier,
            participant.num_gpus > 0,
            plan.test_part(participant),
            plan.scores.sources[participant.domain],
        ),
        encoders,
        (spec.seed, tuple(sorted(spec.shapes.items()))) if frozen else (),
    )
