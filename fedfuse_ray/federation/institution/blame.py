"""Put an institution's name on every error of its own."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from fedfuse_ray.errors import InstitutionError, NotReadyError, SurvivorsChangedError


@contextmanager
def blamed(institution: str) -> Iterator[None]:
    """Put an institution's name, and the traceback, on whatever goes wrong within.

    Raises:
        NotReadyError: As it was: the process is new, and nobody is to blame.
        SurvivorsChangedError: As it was: the server is to blame, or a lost message.
        InstitutionError: For every other error.
    """
    try:
        yield
    except (NotReadyError, SurvivorsChangedError):
        raise
    except Exception:
        raise InstitutionError(institution, traceback.format_exc()) from None
