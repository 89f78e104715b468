"""Codecs of updates, one a file, and error feedback."""

from fedfuse_ray.compression.codec import Codec, Context, Setting
from fedfuse_ray.compression.countsketch import CountSketch
from fedfuse_ray.compression.feedback import ef14, ef21
from fedfuse_ray.compression.fp16 import Fp16
from fedfuse_ray.compression.fp32 import Fp32
from fedfuse_ray.compression.modint import ModInt
from fedfuse_ray.compression.powersgd import PowerSGD
from fedfuse_ray.compression.rot1bit import RotOneBit
from fedfuse_ray.compression.subspace import Subspace
from fedfuse_ray.compression.topk import TopK

CODECS: dict[str, Codec] = {
    kind.name: kind()
    for kind in (Fp32, Fp16, ModInt, Subspace, CountSketch, RotOneBit, TopK, PowerSGD)
}
"""Codec by the name that the config gives it."""

__all__ = ["CODECS", "Codec", "Context", "Setting", "ef14", "ef21"]
