"""Which survivors of a secure round were confirmed, kept before anything is unmasked.

A round that is begun again with the same survivors gives the same sum: nothing more is released.
With others the two sums would differ by whole updates under one share of noise; from other weights
they would be another release, which nobody charged. So institutions remember what they confirmed,
and the driver keeps the survivors for them on the disk.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from fedfuse_ray.errors import FedfuseError
from fedfuse_ray.files import write_json

_FILE = "survivors.json"


@dataclass(frozen=True)
class Promise:
    """What institutions confirmed.

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

    def allows(self, other: Promise) -> bool:
        """Return whether another one may be made after this one."""
        if other.round != self.round:
            return other.round > self.round
        if other.epoch != self.epoch:
            return other.epoch > self.epoch
        known = {self.basis, other.basis} - {""}
        return other.survivors == self.survivors and len(known) <= 1


class Journal:
    """What a driver keeps of promises for the institutions.

    Args:
        folder: A run's checkpoints; None keeps nothing on the disk.

    Attributes:
        last: The last promise.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self.last = read(folder) if folder is not None else None

    def note(self, round: int, epoch: int, survivors: tuple[str, ...]) -> None:
        """Keep which survivors a round is about to sum, before anybody confirms them.

        What was noted before for the same noise stays: institutions will refuse these.
        """
        made = Promise(round, epoch, survivors)
        if not survivors or (self.last is not None and not self.last.allows(made)):
            return
        if self._folder is not None and made != self.last:
            facts = {"round": round, "epoch": epoch, "survivors": survivors}
            write_json(self._folder / _FILE, facts)
        self.last = made


def read(folder: Path) -> Promise | None:
    """Return the last promise that a run's checkpoints hold.

    Raises:
        FedfuseError: It can't be read: then nobody knows what was confirmed.
    """
    path = folder / _FILE
    if not path.is_file():
        return None
    try:
        facts = json.loads(path.read_text())
        return Promise(facts["round"], facts["epoch"], tuple(facts["survivors"]))
    except (ValueError, KeyError, TypeError) as error:
        raise FedfuseError(f"{path} can't be read: {error}") from None
