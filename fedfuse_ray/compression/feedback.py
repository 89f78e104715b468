"""Error feedback: what a codec lost in one round is not lost for good.

Pure functions; the memory is the institution's to keep, one vector a block. Only for updates that
carry no noise of a privacy mechanism: a memory would carry one round's records into the next.
"""

from __future__ import annotations

from fedfuse_ray.blocks import Vector
from fedfuse_ray.compression.codec import Codec, Context, Setting


def ef14(
    codec: Codec, vector: Vector, memory: Vector | None, setting: Setting, context: Context
) -> tuple[bytes, Vector]:
    """Encode the update and what is still owed; the receiver decodes as if there were no memory.

    Args:
        codec: A contraction, or the memory grows.
        vector: float32 [size].
        memory: What earlier payloads lost, float32 [size]; None is zero.
        setting: Strength.
        context: Streams.

    Returns:
        The payload, and the memory after it. Over any number of rounds the decoded payloads and
        the last memory add up to the updates, up to float32 rounding.

    Source: Seide, Fu, Droppo, Li and Yu, "1-Bit Stochastic Gradient Descent", 2014; Karimireddy,
    Rebjock, Stich and Jaggi, 2019, arXiv:1901.09847, algorithm 2.
    """
    owed = vector if memory is None else vector + memory
    payload = codec.encode(owed, setting, context)
    return payload, owed - codec.decode(payload, owed.size, setting, context)


def ef21(
    codec: Codec, vector: Vector, memory: Vector | None, setting: Setting, context: Context
) -> tuple[bytes, Vector]:
    """Encode the difference to what the receiver already holds for this institution.

    The codec has to be a contraction; the memory is what the receiver holds, as in `ef14`.

    Returns:
        The payload, and the memory after it, which is the receiver's estimate of `vector` too: it
        adds the decoded payload to its own copy, bit for bit the same.

    Source: Richtarik, Sokolov and Fatkhullin, "EF21", 2021, arXiv:2106.05203, algorithm 1.
    """
    change = vector if memory is None else vector - memory
    payload = codec.encode(change, setting, context)
    decoded = codec.decode(payload, change.size, setting, context)
    return payload, decoded if memory is None else memory + decoded
