"""Paths from inputs to predictions: one class for each place where modalities may meet."""

from __future__ import annotations

from collections.abc import Callable

from fedfuse_ray.models.paths.embeddings import Hybrid, Joint, Late, Product
from fedfuse_ray.models.paths.maps import Early, Intermediate
from fedfuse_ray.models.paths.owner import Inputs, Owner, Path

PATHS: dict[str, Callable[[Owner], Path]] = {
    "attention": Joint,
    "mean": Joint,
    "concat": Joint,
    "early": Early,
    "intermediate": Intermediate,
    "late": Late,
    "none": Late,
    "product": Product,
    "hybrid": Hybrid,
}


def path_of(owner: Owner) -> Path:
    """Return the path through an owner's blocks."""
    config = owner.spec.config
    return PATHS["early" if config.stacks_inputs else config.fusion](owner)


__all__ = ["PATHS", "Inputs", "Owner", "Path", "path_of"]
