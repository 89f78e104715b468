"""Who trains: an institution, or a pool of institutions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Participant:
    """One who trains: an institution, or a pool of institutions.

    Attributes:
        name: Its name in every table.
        domain: The domain of its specimens.
        modalities: The modalities that it owns, in its domain's slot order.
        members: The institutions whose specimens it trains on; itself, unless it is a pool.
        specimens: Number of its training specimens, which is public.
        batch_size: Specimens a local step.
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

    @property
    def label(self) -> str:
        """Name and modalities, as the Ray dashboard shows them."""
        return f"{self.name} [{', '.join(self.modalities)}]"
