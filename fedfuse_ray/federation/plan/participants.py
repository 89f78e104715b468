"""Who trains: an institution, or a pool of institutions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from fedfuse_ray.config import Experiment, PrivacyConfig
from fedfuse_ray.config.settings.institutions import HardwareConfig
from fedfuse_ray.data.index import DatasetIndex


@dataclass(frozen=True)
class Participant:
    """One who trains: an institution, or a pool of institutions.

    Attributes:
        name: Its name in every table.
        domain: The domain of its specimens.
        modalities: The modalities that it owns, in its domain's slot order.
        members: The institutions whose specimens it trains on; itself, unless it is a pool.
        specimens: Number of its training specimens, which is public.
        patients: Number of their patients, public too; 0 where nobody knows.
        batch_size: Specimens a local step; patients, where they are the unit of privacy.
        num_cpus: Logical CPUs that it asks for.
        num_gpus: Fraction of a GPU that it asks for.
        speed: Compute speed relative to the reference.
        local_steps: Most optimizer steps a round; None takes all of the local epochs.
        tier: The tier that its encoders are of; "" for the default ones.
    """

    name: str
    domain: str
    modalities: tuple[str, ...]
    members: tuple[str, ...]
    specimens: int
    batch_size: int
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    speed: float = 1.0
    local_steps: int | None = None
    tier: str = ""
    patients: int = 0

    def units(self, config: PrivacyConfig) -> int:
        """Return the public number of units that it holds: records, or patients."""
        return self.patients if config.of_patients else self.specimens

    @property
    def label(self) -> str:
        """Name and modalities, as the Ray dashboard shows them."""
        return f"{self.name} [{', '.join(self.modalities)}]"


def who_trains(
    experiment: Experiment, index: DatasetIndex, *, pooled: bool = False
) -> tuple[Participant, ...]:
    """Return the participants, in the order in which every sum is taken.

    Args:
        experiment: The resolved experiment.
        index: The dataset's index.
        pooled: One participant a domain, holding all of its institutions' specimens.
    """
    participants = tuple(_participants(experiment, index))
    return tuple(_pool(participants, index)) if pooled else participants


def _participants(experiment: Experiment, index: DatasetIndex) -> Iterator[Participant]:
    configured = {i.name: i for i in experiment.institutions}
    for name, info in index.institutions.items():
        config = configured.get(name) or configured.get(name.rsplit("-", 1)[0])
        hardware = config.hardware if config else HardwareConfig()
        gpus = hardware.num_gpus
        yield Participant(
            name=name,
            domain=info.domain,
            modalities=info.modalities,
            members=(name,),
            specimens=info.train,
            patients=info.patients,
            batch_size=hardware.batch_size or experiment.training.batch_size,
            num_cpus=hardware.num_cpus,
            num_gpus=experiment.execution.num_gpus_per_institution if gpus is None else gpus,
            speed=hardware.speed,
            local_steps=hardware.local_steps,
            tier=hardware.tier,
        )


def _pool(participants: tuple[Participant, ...], index: DatasetIndex) -> Iterator[Participant]:
    for domain, info in index.domains.items():
        members = [p for p in participants if p.domain == domain]
        if not members:
            continue
        largest = max(members, key=lambda p: p.specimens)
        owned = {m for p in members for m in p.modalities}
        yield replace(
            largest,
            name=domain,
            modalities=tuple(m for m in info.modalities if m in owned),
            members=tuple(p.name for p in members),
            specimens=sum(p.specimens for p in members),
            patients=sum(p.patients for p in members),
            local_steps=None,
            tier="",
        )
