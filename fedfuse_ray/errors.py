"""The project's errors: what the user can mend, and what went wrong in a federation."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FedfuseError(Exception):
    """Base of all errors that fedfuse_ray raises on purpose. The CLI exits with status 1."""


class InputError(FedfuseError):
    """A value that the user gave can't be used. The CLI prints one line and exits with status 2.

    Args:
        field: Where the value stands, as the user would write it (`training.rounds`, a path, a
            manifest's line).
        value: What was found there.
        remedy: What is allowed, and how to mend it.
    """

    def __init__(self, field: str, value: object, remedy: str) -> None:
        self.field, self.value, self.remedy = field, value, remedy
        shown = " ".join(str(value).split())
        shown = shown if len(shown) <= 120 else shown[:117] + "..."
        super().__init__(f"{field}: {shown!r}: {' '.join(remedy.split())}")

    def __reduce__(self) -> tuple[type[InputError], tuple[str, object, str]]:
        return type(self), (self.field, self.value, self.remedy)


class OverBudgetError(InputError):
    """A run would bring the total for its records above the budget that the user gave."""


class InstitutionError(FedfuseError):
    """An institution failed. Carries its name and the traceback from where it ran."""

    def __init__(self, institution: str, traceback: str) -> None:
        self.institution, self.traceback = institution, traceback
        super().__init__(f"institution {institution} failed:\n{traceback}")

    def __reduce__(self) -> tuple[type[InstitutionError], tuple[object, ...]]:
        return InstitutionError, (self.institution, self.traceback)


class MendableError(InstitutionError):
    """An institution can't go on, for a reason that the settings can mend; one line.

    Args:
        institution: Its name.
        round: The round that it is in; None outside of rounds.
        reason: What is wrong, and the remedy.
    """

    def __init__(self, institution: str, round: int | None, reason: str) -> None:
        super().__init__(institution, "")
        self.round, self.reason = round, reason
        where = "" if round is None else f", round {round}"
        self.args = (f"institution {institution}{where}: {reason}",)

    def __reduce__(self) -> tuple[type[InstitutionError], tuple[object, ...]]:
        return MendableError, (self.institution, self.round, self.reason)


class ProtocolError(FedfuseError):
    """A payload that does not belong to this round: altered, replayed, or of unknown origin."""


class TooFewError(ProtocolError):
    """Fewer institutions are left in a secure round than its threshold."""


class NotReadyError(FedfuseError):
    """A process that was started again has not been given its state yet."""


class SurvivorsChangedError(FedfuseError):
    """A secure round was begun again and others are left: its noise has to be drawn anew."""


class RestartError(FedfuseError):
    """A party of a round in several steps was lost; the round starts again, identically."""


class DeadlineError(FedfuseError):
    """A wait ran out of its time."""


class StorageError(FedfuseError, OSError):
    """A file can't be written: the disk is full, or the folder is not ours.

    Args:
        path: The file.
        reason: What the operating system says.
        remedy: What to do about it.
    """

    def __init__(
        self,
        path: object,
        reason: str,
        remedy: str = "make room or allow larger files there, then continue with --resume",
    ) -> None:
        self.path, self.reason, self.remedy = str(path), reason, remedy
        super().__init__(f"{path} can't be written: {reason}; {remedy}")

    def __reduce__(self) -> tuple[type[StorageError], tuple[str, str, str]]:
        return StorageError, (self.path, self.reason, self.remedy)


class ResourceError(FedfuseError):
    """The cluster can't hold the federation as configured."""


class BudgetSpentError(FedfuseError):
    """The next release would spend more privacy budget than was granted."""


def did_you_mean(name: object, allowed: Iterable[str], otherwise: str = "") -> str:
    """Return what ends a remedy: the closest of the allowed names to a misspelt one, if any.

    >>> did_you_mean("fedprx", ("fedavg", "fedprox"))
    "; did you mean 'fedprox'?"
    """
    close = difflib.get_close_matches(str(name), list(allowed), 1)
    return f"; did you mean {close[0]!r}?" if close else otherwise
