"""Random streams derived from (seed, purpose, ...): the same name gives the same stream anywhere.

No global generator is ever used, so the order in which institutions run, and the process that they
run in, can't change a result.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive(seed: int, purpose: str, *keys: str | int) -> int:
    """Return a 64-bit seed for the stream named by `seed`, `purpose` and `keys`."""
    # Plain types only: an enum's member, or numpy's integer, would name another stream.
    plain = (str(key) if isinstance(key, str) else int(key) for key in keys)
    name = repr((int(seed), purpose, *plain)).encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")


def generator(seed: int, purpose: str, *keys: str | int) -> np.random.Generator:
    """Return numpy's generator for the stream, as `generator(0, "shuffle", "med-01", 3)`."""
    return np.random.Generator(np.random.SFC64(derive(seed, purpose, *keys)))


def torch_generator(seed: int, purpose: str, *keys: str | int) -> torch.Generator:
    """Return torch's CPU generator for the stream."""
    import torch

    return torch.Generator().manual_seed(derive(seed, purpose, *keys) >> 1)
