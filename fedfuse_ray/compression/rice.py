"""A sorted set of indices in little more than its entropy: Golomb-Rice codes of the gaps.

The low bits of all gaps come first, packed, and then the quotients in unary as one row of bits, in
which the n-th set bit ends the n-th gap. Apart like this, both ways are a few array operations.
Sources: Rice, "Some Practical Universal Noiseless Coding Techniques", 1979; for the two planes,
Elias, "Efficient Storage and Retrieval by Content and Address of Static Files", 1974.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.packing import pack, packed_bytes, unpack, word_dtype

Indices = npt.NDArray[np.int64]

_MOST_LOW_BITS = 32


def encode(indices: Indices, size: int) -> bytes:
    """Return the code of at least one index, strictly rising, from 0 to size - 1.

    One byte says how many low bits a gap has: the number that makes these gaps shortest.
    """
    gaps = np.diff(indices, prepend=-1) - 1
    low_bits = _best_low_bits(gaps, size)
    quotients = gaps >> low_bits
    unary = np.zeros(int(quotients.sum()) + gaps.size, dtype=np.uint8)
    unary[np.cumsum(quotients + 1) - 1] = 1
    low = b""
    if low_bits:
        low = bytes(pack((gaps & ((1 << low_bits) - 1)).astype(word_dtype(low_bits)), low_bits))
    return bytes([low_bits]) + low + np.packbits(unary).tobytes()


def decode(code: bytes | memoryview, count: int, size: int) -> Indices:
    """Return the `count` indices below `size` that a code stands for, strictly rising.

    Raises:
        ProtocolError: The code is not one of `count` such indices.
    """
    view = memoryview(code)
    low_bits = view[0] if len(view) else _MOST_LOW_BITS + 1
    start = 1 + (packed_bytes(count, low_bits) if low_bits else 0)
    if low_bits > _MOST_LOW_BITS or len(view) <= start:
        raise ProtocolError(f"{len(view)} bytes are no code of {count} indices")
    ends = np.flatnonzero(np.unpackbits(np.frombuffer(view[start:], dtype=np.uint8)))
    if ends.size != count or len(view) - start != ends[-1] // 8 + 1:
        raise ProtocolError(f"a code of {count} indices holds {ends.size} and what follows them")
    quotients = np.diff(ends, prepend=-1) - 1
    if int(quotients.max()) > size >> low_bits:
        raise ProtocolError(f"a gap between indices is longer than {size}")
    gaps = quotients << low_bits
    if low_bits:
        gaps |= unpack(view[1:start], count, low_bits).astype(np.int64)
    indices: Indices = np.cumsum(gaps + 1) - 1
    if indices[-1] >= size:
        raise ProtocolError(f"index {indices[-1]} of a vector of {size}")
    return indices


def _best_low_bits(gaps: Indices, size: int) -> int:
    """Return the low bits that give the shortest code; more than the mean gap's never do."""
    most = min(_MOST_LOW_BITS, max(0, size // gaps.size).bit_length())
    lengths = [gaps.size * bits + int((gaps >> bits).sum()) for bits in range(most + 1)]
    return int(np.argmin(lengths))
