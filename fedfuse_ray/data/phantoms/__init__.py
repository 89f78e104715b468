"""Generated specimens: physical factors, one forward model per modality, scanners, institutions."""

from fedfuse_ray.data.phantoms.factors import (
    Family,
    class_names,
    codewords,
    draw_factors,
    nearest_class,
)
from fedfuse_ray.data.phantoms.forward import FORWARD_MODELS, ForwardModel, PhysicalModel
from fedfuse_ray.data.phantoms.from_file import known_models
from fedfuse_ray.data.phantoms.generate import count, generate
from fedfuse_ray.data.phantoms.imaging import Resolution, public
from fedfuse_ray.data.phantoms.scanner import Scanner, ideal

__all__ = [
    "FORWARD_MODELS",
    "Family",
    "ForwardModel",
    "PhysicalModel",
    "Resolution",
    "Scanner",
    "class_names",
    "codewords",
    "count",
    "draw_factors",
    "generate",
    "ideal",
    "known_models",
    "nearest_class",
    "public",
]
