"""Put an institution's name on every error of its own."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from fedfuse_ray.errors import (
    InputError,
    InstitutionError,
    MendableError,
    NotReadyError,
    SurvivorsChangedError,
)


@contextmanager
def blamed(institution: str, round: int | None = None) -> Iterator[None]:
    """Put an institution's name, and the traceback, on whatever goes wrong within.

    What the user can mend, as a learning rate at which training diverges, is told in one line.

    Args:
        institution: Who is to blame.
        round: The round that it is in, if any.

    Raises:
        NotReadyError: As it was: the process is new, and nobody is to blame.
        SurvivorsChangedError: As it was: the server is to blame, or a lost message.
        MendableError: For an `InputError`.
        InstitutionError: For every other error.
    """
    try:
        yield
    except (NotReadyError, SurvivorsChangedError):
        raise
    except InputError as error:
        raise MendableError(institution, round, str(error)) from None
    except Exception:
        raise InstitutionError(institution, traceback.format_exc()) from None
