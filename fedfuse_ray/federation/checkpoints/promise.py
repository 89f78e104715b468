"""What is remembered of secure rounds, so that no server can have one made twice for one charge.

A round that is begun again with the same survivors gives the same sum: nothing more is released.
With others the two sums would differ by whole updates under one share of noise; from other weights
they would be another release, which nobody charged. So institutions remember what they confirmed,
which attempts they took part in, and how often noise was drawn anew; and the driver keeps it for
them on the disk.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from fedfuse_ray.errors import FedfuseError
from fedfuse_ray.files import write_json

_FILE = "survivors.json"


@dataclass(frozen=True)
class Promise:
    """What institutions confirmed of one round.

    Attributes:
        round: From 1.
        epoch: How often the round's noise was drawn anew.
        survivors: Whose updates are in the sum, and no others.
        basis: Digest of the weights and terms that the updates answer, as one institution received
            them; "" on the disk, which keeps what all of them share.
    """

    round: int
    epoch: int
    survivors: tuple[str, ...]
    basis: str = ""

    def repeats(self, other: Promise) -> bool:
        """Return whether the other one leads to the same sum, as far as is known."""
        mine, theirs = replace(self, basis=""), replace(other, basis="")
        return mine == theirs and len({self.basis, other.basis} - {""}) <= 1


@dataclass(frozen=True)
class Memory:
    """What an institution, or the disk for all of them, remembers.

    Attributes:
        promises: In the order of rounds; one of each round of which something was confirmed.
        epochs: How often a round's noise was drawn anew, of rounds of which it was.
        attempt: The last attempt that was begun in this session; -1 before the first.
    """

    promises: tuple[Promise, ...] = ()
    epochs: Mapping[int, int] = field(default_factory=dict)
    attempt: int = -1

    @property
    def last(self) -> int:
        """The last round of which something was confirmed; 0 before the first."""
        return max((promise.round for promise in self.promises), default=0)

    def of(self, round: int) -> Promise | None:
        """Return what was confirmed of a round, if anything was."""
        return next((p for p in self.promises if p.round == round), None)

    def allows(self, made: Promise) -> bool:
        """Return whether something may be confirmed after all this.

        The rounds to come; the last one again, if it is the same or its noise is new; and earlier
        ones if they are the same, since what came after them rests on them.
        """
        if made.round > self.last:
            return True
        known = self.of(made.round)
        if known is None:
            return False
        return known.repeats(made) or (made.round == self.last and made.epoch > known.epoch)

    def after(self, made: Promise) -> Memory:
        """Return the memory with a promise that it allows."""
        others = [promise for promise in self.promises if promise.round != made.round]
        ordered = sorted([*others, made], key=lambda promise: promise.round)
        return replace(self.drawn(made.round, made.epoch), promises=tuple(ordered))

    def drawn(self, round: int, epoch: int) -> Memory:
        """Return the memory of which a round's noise was drawn so often anew, or more often."""
        if epoch <= self.epochs.get(round, 0):
            return self
        return replace(self, epochs={**self.epochs, round: epoch})


class Journal:
    """What a driver keeps for the institutions.

    Args:
        folder: A run's checkpoints; None keeps nothing on the disk.

    Attributes:
        memory: What is remembered of what came before the attempt that goes on.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self.memory = Memory() if folder is None else read(folder)

    def begin(self, attempt: int) -> None:
        """Remember the attempts before one that is about to be begun.

        Args:
            attempt: They are counted from 0 in each session, without gaps.
        """
        self.memory = replace(self.memory, attempt=attempt - 1)

    def note(self, round: int, epoch: int, survivors: tuple[str, ...]) -> None:
        """Keep which survivors a round is about to sum, before anybody confirms them.

        What was noted before for the same noise stays: institutions will refuse these.
        """
        made = Promise(round, epoch, survivors)
        if not survivors or not self.memory.allows(made):
            return
        before, self.memory = self.memory, self.memory.after(made)
        if self._folder is not None and self.memory != before:
            _write(self._folder / _FILE, self.memory)


def read(folder: Path) -> Memory:
    """Return what a run's checkpoints remember; nothing where nothing was confirmed yet.

    Raises:
        FedfuseError: It can't be read: then nobody knows what was confirmed.
    """
    path = folder / _FILE
    if not path.is_file():
        return Memory()
    try:
        facts = json.loads(path.read_text())
        return Memory(
            promises=tuple(
                Promise(each["round"], each["epoch"], tuple(each["survivors"]))
                for each in facts["promises"]
            ),
            epochs={int(round): int(epoch) for round, epoch in facts["epochs"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FedfuseError(f"{path} can't be read: {error}") from None


def _write(path: Path, memory: Memory) -> None:
    promises = [asdict(promise) for promise in memory.promises]
    for facts in promises:
        del facts["basis"]  # each institution's own
    epochs: dict[int, int] = dict(memory.epochs)
    write_json(path, {"promises": promises, "epochs": epochs})
