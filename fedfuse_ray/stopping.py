"""SIGINT and SIGTERM end a command with a word on how to go on, and its status.

Both raise `KeyboardInterrupt`, the one exception that Ray's waits let through, wherever the command
is: each round is on the disk before the next begins, so nothing is lost between. A second signal
ends the process at once.
"""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_NONE = 0


class Stopped(BaseException):
    """The user stopped the command.

    Args:
        remedy: How to go on; empty where there is nothing to continue.
        signum: The signal.
    """

    def __init__(self, remedy: str = "", signum: int = signal.SIGINT) -> None:
        self.remedy, self.signum = remedy, signum
        super().__init__(remedy)

    @property
    def status(self) -> int:
        """What a shell is told: 130 after SIGINT, 143 after SIGTERM."""
        return 128 + self.signum


class _Received:
    """The signal that this process was stopped by, for a process has one set of handlers."""

    signum: int = _NONE


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGINT and SIGTERM stop what runs within; for a process's main thread."""
    with _restoring() as ours:
        if ours:
            _Received.signum = _NONE
            for number in _SIGNALS:
                signal.signal(number, _stop)
        yield


@contextmanager
def keeping_handlers() -> Iterator[None]:
    """Put back the handlers of signals that a library replaces, as Ray does with SIGTERM's.

    What the library's own handler makes of a signal, `SystemExit`, is an interrupt too.
    """
    with _restoring() as ours:
        try:
            yield
        except SystemExit as end:
            if not ours or end.code not in _SIGNALS:
                raise
            _Received.signum = int(end.code)
            raise KeyboardInterrupt from None


@contextmanager
def _restoring() -> Iterator[bool]:
    """Put handlers back at the end; yields whether this thread may set any."""
    if threading.current_thread() is not threading.main_thread():
        yield False
        return
    held = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield True
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)


@contextmanager
def resumable(command: str, folder: Path, begun: str) -> Iterator[None]:
    """Say how to go on with what is stopped within.

    Args:
        command: What continues it, as the user types it, before `--resume FOLDER`.
        folder: Where it lies.
        begun: A file in the folder that is there as soon as there is anything to continue.

    Raises:
        Stopped: In place of `KeyboardInterrupt`.
    """
    try:
        yield
    except KeyboardInterrupt:
        go_on = f"continue with: {command} --resume {folder}"
        raise _stopped(go_on if (folder / begun).is_file() else "") from None


def ending(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command whose interrupts reach `exit_status`; typer would return a status for them.

    Its signature and its docstring, which typer reads, stay.
    """

    @functools.wraps(command)
    def run(*args: object, **options: object) -> None:
        try:
            command(*args, **options)
        except KeyboardInterrupt:
            raise _stopped("") from None

    return run


def _stopped(remedy: str) -> Stopped:
    return Stopped(remedy, _Received.signum or signal.SIGINT)


def _stop(signum: int, frame: FrameType | None) -> None:
    _Received.signum = signum
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    raise KeyboardInterrupt
