"""The terminal: progress, one-line errors, exit statuses. Shared by every command."""

from __future__ import annotations

import io
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

import typer
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from fedfuse_ray.errors import FedfuseError, InputError
from fedfuse_ray.stopping import Stopped, stoppable

if TYPE_CHECKING:
    from fedfuse_ray.report.rows import RoundRows

DONE, FAILED, BAD_INPUT, CLOSED = 0, 1, 2, 141

RESULTS = "Results go to "

_REMEDY = "name a file or folder that can be read and written, or make room"
_LINES = 10
_SILENCE_SECONDS = 30.0
_BAR = 20
_WIDTH = 110
# The base of typer's complaints; typer exports it under no name of its own.
_UsageError = cast(type[Exception], typer.BadParameter.__mro__[1])


def exit_status(command: Callable[[], object]) -> int:
    """Run a command; errors go to standard error, and the status says whose fault it was."""
    _write_any_text()
    try:
        with stoppable():
            command()
            sys.stdout.flush()
    except InputError as error:
        return _complain(str(error), BAD_INPUT)
    except FedfuseError as error:
        return _complain(str(error), FAILED)
    except typer.Exit as exit_:
        return exit_.exit_code
    except _UsageError as error:
        return _complain(" ".join(_said(error).split()), BAD_INPUT)
    except Stopped as stop:
        return _complain("interrupted" + (f"; {stop.remedy}" if stop.remedy else ""), stop.status)
    except (KeyboardInterrupt, typer.Abort):
        return _complain("interrupted", Stopped().status)
    except BrokenPipeError:
        # Who read has gone; what the interpreter still flushes at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED
    except OSError as error:
        if error.errno is None:
            traceback.print_exc()
            return FAILED
        where = "" if error.filename is None else f"{error.filename}: "
        return _complain(f"{where}{error.strerror}; {_REMEDY}", FAILED)
    except Exception:
        traceback.print_exc()
        return FAILED
    return DONE


def _write_any_text() -> None:
    """Let no name in another script end a command on a terminal that can't show it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def console(*, stderr: bool = False, width: int | None = None, soft_wrap: bool = False) -> Console:
    """Return a console that shows text as it is: what users wrote may look like markup."""
    return Console(
        stderr=stderr, width=width, soft_wrap=soft_wrap, markup=False, highlight=False, emoji=False
    )


def output() -> Console:
    """Return standard output for tables: wide enough for them where it is no terminal."""
    return console() if sys.stdout.isatty() else console(width=_WIDTH)


def say(text: str, *, on_one_line: bool = False) -> None:
    """Print text as it is; a terminal breaks lines that are too long unless told not to."""
    output().print(text, soft_wrap=on_one_line)


class Display:
    """Draws a view while a `with` block runs.

    Args:
        view: The view; None where there is no terminal to draw on.
    """

    def __init__(self, view: Live | Progress | None) -> None:
        self._view = view

    def __enter__(self) -> Self:
        if self._view is not None:
            self._view.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._view is not None:
            self._view.stop()


class TerminalProgress(Display):
    """A live bar on a terminal, plain lines elsewhere (a job's log), nothing with `quiet`.

    Plain lines go to standard output, which leaves standard error to errors. Of many rounds about
    ten are told, and one every half minute.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        terminal = console(stderr=True)
        self._console = console(soft_wrap=True)
        self._quiet = quiet
        self._live = terminal.is_terminal and not quiet
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[state]}", markup=False),
            TimeElapsedColumn(),
            console=terminal,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, state="", start=True)
        self._told = time.monotonic()
        self._first: tuple[int, float] | None = None
        super().__init__(self._bar if self._live else None)

    def stage(self, text: str) -> None:
        """A stage began."""
        self._first, self._told = None, time.monotonic()
        if self._live:
            self._bar.reset(self._task, total=None, description=text, state="")
        elif not self._quiet:
            self._console.print(text)

    def advanced(self, done: int, total: int, what: str, rows: RoundRows | None) -> None:
        """A round, or a participant that trains alone, is done."""
        now = time.monotonic()
        state = f"{what} {done}/{total}" if what == "round" else f"{done}/{total} {what}"
        if rows is not None:
            row = rows[0]
            state += measures(row.accuracy, row.epsilon, row.uplink_bytes)
        state += self._left(done, total, now)
        if self._live:
            self._bar.update(self._task, completed=done, total=total, state=state)
        elif not self._quiet and self._due(done, total, now):
            self._told = now
            self._console.print(f"  {bar(done, total)} {state}")

    def _left(self, done: int, total: int, now: float) -> str:
        """Return the time to go; the first round warms caches up, so it does not count."""
        from fedfuse_ray.report.units import human_seconds

        self._first = self._first or (done, now)
        counted = done - self._first[0]
        if not counted or done == total:
            return ""
        return f"  {human_seconds((now - self._first[1]) / counted * (total - done))} left"

    def _due(self, done: int, total: int, now: float) -> bool:
        tenth = done == total or done % max(1, total // _LINES) == 0
        return tenth or now - self._told >= _SILENCE_SECONDS


def results_line(folder: Path) -> str:
    """Return a log's first line, by which `watch --job` finds the folder."""
    return f"{RESULTS}{folder.absolute()}"


def bar(done: int, total: int) -> str:
    """Return a bar of plain characters, which every log shows: `[####......]`.

    >>> bar(5, 20)
    '[#####...............]'
    """
    filled = _BAR * done // max(1, total)
    return f"[{'#' * filled}{'.' * (_BAR - filled)}]"


def measures(accuracy: float | None, epsilon: float | None, uplink_bytes: int) -> str:
    """Return what a round came to, on a line; what it did not is left out."""
    # The package of reports takes plotly along, which a mistake in a command must not wait for.
    from fedfuse_ray.report.units import human_bytes, percent

    told = [f"accuracy {percent(accuracy)}"] if accuracy is not None else []
    told += [f"epsilon {epsilon:.2f}"] if epsilon is not None else []
    told += [f"uplink {human_bytes(uplink_bytes)}"]
    return "".join(f"  {text}" for text in told)


def _said(error: Exception) -> str:
    """Return a usage error with the option that it is about."""
    return str(getattr(error, "format_message", error.__str__)())


def _complain(message: str, status: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return status
