"""The CrossModalNet: an encoder per modality, a fusion, a head per domain, each a named block."""

from fedfuse_ray.models.initial import block_sizes, initial_blocks
from fedfuse_ray.models.net import CrossModalNet
from fedfuse_ray.models.spec import ModelSpec

__all__ = ["CrossModalNet", "ModelSpec", "block_sizes", "initial_blocks"]
