"""A model on the wire: named blocks, each one flat float32 vector.

Encoders, fusion and heads are averaged, compressed, clipped and masked block by block, so this is
the only form in which weights and updates leave an institution.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
Blocks = dict[str, Vector]
"""Block name (`encoder/ct`, `fusion`, `head/medical`) to its flat float32 parameters."""


def sha256(blocks: Mapping[str, Vector]) -> str:
    """Return the hex digest of names and values, in order of name.

    Each name and each vector is preceded by its length in bytes (64 bits, little-endian), so no two
    different models are hashed as the same bytes.
    """
    digest = hashlib.sha256()
    for name in sorted(blocks):
        for part in (name.encode(), np.ascontiguousarray(blocks[name], dtype="<f4").tobytes()):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
    return digest.hexdigest()


def num_parameters(blocks: Mapping[str, Vector]) -> int:
    """Return the number of parameters over all blocks.

    >>> num_parameters({"fusion": np.zeros(3, np.float32), "head/medical": np.zeros(2, np.float32)})
    5
    """
    return sum(vector.size for vector in blocks.values())
