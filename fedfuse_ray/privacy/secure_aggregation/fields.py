"""A message's body as fields whose sizes the round's terms tell: no names, few lengths.

Everybody knows the terms, so institutions stand in their order and blocks in that of `owned_by`. A
subset of either is a bitmap, bit i % 8 of byte i // 8 for member i, and what follows for its
members are records of a known size. A subset has one encoding only, since spare bits must be zero:
two messages that mean the same are the same bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from fedfuse_ray.errors import ProtocolError

Buffer = bytes | memoryview


def bitmap_bytes(members: int) -> int:
    """Return how many bytes a subset of so many members takes."""
    return -(-members // 8)


def bitmap(order: Sequence[str], present: Collection[str]) -> bytes:
    """Return the subset of `order` that is present."""
    bits = sum(1 << index for index, name in enumerate(order) if name in present)
    return bits.to_bytes(bitmap_bytes(len(order)), "little")


class Reader:
    """Takes a body's fields one after the other, without copying; errors name `what` it is."""

    def __init__(self, data: Buffer, what: str) -> None:
        self._rest, self._what = memoryview(data), what

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return len(self._rest)

    def take(self, length: int) -> memoryview:
        """Return the next field.

        Raises:
            ProtocolError: Fewer bytes are left.
        """
        if length > len(self._rest):
            raise ProtocolError(f"{self._what} is truncated")
        field, self._rest = self._rest[:length], self._rest[length:]
        return field

    def subset(self, order: Sequence[str]) -> tuple[str, ...]:
        """Return the members of the next bitmap, in their order.

        Raises:
            ProtocolError: It is truncated, or has bits that stand for no member.
        """
        bits = int.from_bytes(self.take(bitmap_bytes(len(order))), "little")
        if bits >> len(order):
            raise ProtocolError(f"{self._what} names members that do not exist")
        return tuple(name for index, name in enumerate(order) if bits >> index & 1)

    def table(self, names: Collection[str], length: int) -> dict[str, bytes]:
        """Return a record of `length` bytes for each name, in memory of its own."""
        return {name: bytes(self.take(length)) for name in names}

    def end(self) -> None:
        """Check that nothing is left.

        Raises:
            ProtocolError: There are more bytes than the fields have.
        """
        if len(self._rest):
            raise ProtocolError(f"{self._what} has {len(self._rest)} bytes too many")
