"""The terminal: progress, one-line errors, exit statuses. Shared by every command."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import cast

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from fedfuse_ray.errors import FedfuseError, InputError

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

_LINES = 10
_WIDTH = 110
# The base of typer's complaints; typer exports it under no name of its own.
_UsageError = cast(type[Exception], typer.BadParameter.__mro__[1])


def exit_status(command: Callable[[], object]) -> int:
    """Run a command; errors go to standard error, and the status says whose fault it was."""
    try:
        command()
    except InputError as error:
        return _complain(str(error), BAD_INPUT)
    except FedfuseError as error:
        return _complain(str(error), FAILED)
    except typer.Exit as exit_:
        return exit_.exit_code
    except _UsageError as error:
        return _complain(" ".join(_said(error).split()), BAD_INPUT)
    except (KeyboardInterrupt, typer.Abort):
        return _complain("interrupted; continue with --resume", INTERRUPTED)
    except Exception:
        traceback.print_exc()
        return FAILED
    return DONE


def output() -> Console:
    """Return standard output for tables: wide enough for them where it is no terminal."""
    return Console() if sys.stdout.isatty() else Console(width=_WIDTH)


class TerminalProgress:
    """A live bar on a terminal, plain lines elsewhere (a job's log), nothing with `quiet`.

    Plain lines go to standard output, which leaves standard error to errors.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        terminal = Console(stderr=True)
        self._console = Console()
        self._quiet = quiet
        self._live = terminal.is_terminal and not quiet
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=terminal,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, state="", start=True)

    def __enter__(self) -> TerminalProgress:
        if self._live:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._bar.stop()

    def stage(self, text: str) -> None:
        """A stage began."""
        if self._live:
            self._bar.reset(self._task, total=None, description=text, state="")
        elif not self._quiet:
            self._console.print(text, markup=False, highlight=False)

    def advanced(self, done: int, total: int, what: str, accuracy: float | None) -> None:
        """A round, or a participant that trains alone, is done."""
        state = f"{what} {done}/{total}" if what == "round" else f"{done}/{total} {what}"
        if accuracy is not None:
            state += f"  accuracy {accuracy:.1%}"
        if self._live:
            self._bar.update(self._task, completed=done, total=total, state=state)
        elif not self._quiet and (done == total or done % max(1, total // _LINES) == 0):
            self._console.print(f"  {state}", markup=False, highlight=False)


def _said(error: Exception) -> str:
    """Return a usage error with the option that it is about."""
    return str(getattr(error, "format_message", error.__str__)())


def _complain(message: str, status: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return status
