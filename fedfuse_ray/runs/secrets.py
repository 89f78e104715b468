"""The root of a run's noise where it is secret: in a file of its own until the run ends."""

from __future__ import annotations

import os
from pathlib import Path

from fedfuse_ray.config import Experiment
from fedfuse_ray.errors import FedfuseError, InputError
from fedfuse_ray.privacy.accounting.ledger import read_ledger
from fedfuse_ray.privacy.randomness import Randomness, secret

FILE = "privacy_secret"
_LEDGER = "privacy_ledger.jsonl"
_FIELD = "privacy.randomness"


def randomness_of(experiment: Experiment, folder: Path, *, resume: bool) -> Randomness | None:
    """Return a run's secret randomness; None where it is derived from the seed.

    Args:
        experiment: The resolved experiment.
        folder: The run's folder.
        resume: The run goes on, with the root that it began with.

    Raises:
        InputError: The root of an interrupted run is gone, or of one that has ended and that
            released scores with noise: it can't be drawn as it was.
    """
    if experiment.privacy.randomness != "secret" or not experiment.privacy.enabled:
        return None
    path = folder / FILE
    if not resume:
        return _begin(path)
    if path.is_file():
        try:
            return Randomness(path.read_bytes())
        except FedfuseError as error:
            raise InputError(_FIELD, path, f"{error}; start the run again") from None
    if (folder / "summary.json").is_file():
        if any(event.records for event in read_ledger(folder / _LEDGER)):
            raise InputError(
                _FIELD,
                path,
                "the run has ended, and the noise on its scores can't be drawn again as it was; "
                "keep its results, or start it again",
            )
        return secret()  # nothing is drawn any more
    raise InputError(_FIELD, path, "the run's secret is gone, so it can't go on; start it again")


def forget(folder: Path) -> None:
    """Remove the root: from now on nobody can compute the run's noise."""
    (folder / FILE).unlink(missing_ok=True)


def _begin(path: Path) -> Randomness:
    """Draw a root and keep it where only its owner may read it, before it is used."""
    drawn = secret()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(drawn.root)
        file.flush()
        os.fsync(file.fileno())
    return drawn
