"""A hash chain over lines of JSON: whoever changes one line changes all that follow it.

A line's digest covers the digest of the line before and the line's own bytes as they stand in the
file, so there is no second way to write an entry. Haber and Stornetta, "How to time-stamp a digital
document", 1991, doi 10.1007/BF00196791.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fedfuse_ray.errors import FedfuseError

START = hashlib.sha256(b"fedfuse_ray privacy ledger, version 1").hexdigest()
"""What stands before the first line. It is the same for all runs, as the lines of a seed are."""

_LINE = re.compile(rb'(\{.+), "chain": "([0-9a-f]{64})"\}', re.DOTALL)


class BrokenChainError(FedfuseError):
    """An entry does not follow from those before it.

    Attributes:
        entry: Its number, from 1.
    """

    def __init__(self, entry: int, line: bytes, why: str) -> None:
        self.entry = entry
        super().__init__(f"entry {entry} ({_told(line)}) {why}")


@dataclass(frozen=True, slots=True)
class Chain:
    """The end of a chain.

    Attributes:
        entries: How many there are.
        head: The digest of the last one, hex.
    """

    entries: int = 0
    head: str = START

    def extend(self, contents: Iterable[str]) -> tuple[list[str], Chain]:
        """Return JSON objects as chained lines, and the longer chain's end.

        Args:
            contents: Each a JSON object on one line, not an empty one, without a key `chain`.

        >>> lines, chain = Chain().extend(['{"round": 1}'])
        >>> chain.entries, lines[0][:22]
        (1, '{"round": 1, "chain": ')
        """
        chain, lines = self, []
        for content in contents:
            chain = chain.after(content.encode())
            lines.append(f'{content[:-1]}, "chain": "{chain.head}"}}\n')
        return lines, chain

    def after(self, content: bytes) -> Chain:
        """Return the chain's end after one more entry."""
        digest = hashlib.sha256(self.head.encode() + b"\n" + content)
        return Chain(self.entries + 1, digest.hexdigest())


@dataclass(frozen=True, slots=True)
class Link:
    """One verified entry: its line without the line's end, and the chain's end with it."""

    line: bytes
    chain: Chain


def follow(data: bytes) -> Iterator[Link]:
    """Yield a file's entries as long as each follows from those before.

    Raises:
        BrokenChainError: Any byte of the entry is not what was written, or an entry before it was
            taken out, added or moved.
    """
    chain = Chain()
    *lines, rest = data.split(b"\n")
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise BrokenChainError(number, line, "is not a chained entry")
        chain = chain.after(match[1] + b"}")
        if chain.head.encode() != match[2]:
            raise BrokenChainError(number, line, "does not follow from the entries before it")
        yield Link(line, chain)
    if rest:
        raise BrokenChainError(len(lines) + 1, rest, "has no end of line")


def _told(line: bytes) -> str:
    """Return what an entry that can't be trusted says of itself."""
    try:
        row = json.loads(line)
        return f"institution {row['institution']}, round {row['round']}, as it now reads"
    except (ValueError, TypeError, KeyError):
        return "unreadable"
