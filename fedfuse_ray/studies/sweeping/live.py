"""A sweep in the terminal: a live table where there is one, a line a trial elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.console import Console, ConsoleOptions
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from fedfuse_ray.report.units import ABSENT, human_bytes, human_seconds, percent
from fedfuse_ray.studies.sweeping.points import value_text
from fedfuse_ray.studies.sweeping.store import DONE, MISSING, Row
from fedfuse_ray.terminal import Display
from fedfuse_ray.terminal import console as plain_console

_SHOWN = 12


class _Name:
    """A trial's name in a table: one that is too long goes on below, after a hyphen."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        yield Text("\n".join(folded(self._name, options.max_width)))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        least = max(map(len, _parts(self._name)))
        return Measurement(least, len(self._name)).with_maximum(options.max_width)


class LiveTable(Display):
    """Shows trials as they run and end: a table on a terminal, elsewhere a line for each that ends.

    `total` says how many there will be, where a search proposes them one by one.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        *,
        total: int = 0,
        quiet: bool = False,
        console: Console | None = None,
        terminal: Console | None = None,
    ) -> None:
        self._rows = {row.trial: row for row in rows}
        self._ended = {row.trial for row in rows if row.status != MISSING}
        self._running: dict[str, str] = {}
        self._total = total
        self._quiet = quiet
        self._console = console or plain_console()
        terminal = terminal or plain_console(stderr=True)
        drawn = terminal.is_terminal and not quiet
        self._live = Live(console=terminal, refresh_per_second=4, transient=True) if drawn else None
        super().__init__(self._live)

    def begin(self, rows: Sequence[Row]) -> None:
        """Show these trials from now on."""
        self._rows = {row.trial: row for row in rows}
        self._ended = {row.trial for row in rows if row.status != MISSING}
        self._draw()

    def say(self, text: str) -> None:
        """Say what is going on, outside the table."""
        if not self._quiet:
            console = self._live.console if self._live else self._console
            console.print(text, markup=False, highlight=False, soft_wrap=True)

    def advanced(self, name: str, round: int, total: int, accuracy: float | None) -> None:
        """A trial has done a round."""
        self._running[name] = f"round {round}/{total}  {percent(accuracy)}"
        self._draw()

    def ended(self, row: Row) -> None:
        """A trial has ended."""
        self._running.pop(row.trial, None)
        self._rows[row.trial] = row
        self._ended.add(row.trial)
        if self._live is None and not self._quiet:
            count = f"{len(self._ended)}/{max(self._total, len(self._rows))}"
            self._say_ended(f"[{count}] ", row)
        self._draw()

    def _say_ended(self, count: str, row: Row) -> None:
        """Say a trial's end on one line, or where a terminal's row is too short, on several."""
        name, result = f"{row.trial}: ", f"{row.status}{_result(row)}"
        width = self._console.width - len(count)
        if self._console.is_terminal and len(name + result) > width:
            margin = "\n" + " " * len(count)
            name = margin.join([*folded(name.strip(), width), ""])
        self.say(count + name + result)

    def _draw(self) -> None:
        if self._live:
            self._live.update(live_table(list(self._rows.values()), self._running, self._total))


def live_table(rows: Sequence[Row], running: Mapping[str, str], total: int = 0) -> Table:
    """Return the trials that run, then those that ended last, and how many are to come."""
    ended = [row for row in rows if row.status != MISSING and row.trial not in running]
    title = f"{len(ended)} of {max(total, len(rows))} trials ended"
    table = _empty(title)
    for name, state in running.items():
        table.add_row(_Name(name), state, "", "", "", style="bold")
    for row in sorted(ended, key=lambda row: -(row.ended or 0.0))[:_SHOWN]:
        _add(table, row)
    return table


def result_table(rows: Sequence[Row], front: Sequence[Row]) -> Table:
    """Return the Pareto front, most accurate first."""
    table = _empty(f"Pareto front: {len(front)} of {len(rows)} trials")
    for row in sorted(front, key=lambda row: -(row.accuracy or 0.0)):
        _add(table, row)
    return table


def trial_line(row: Row) -> str:
    """Return how a trial ended, on a line."""
    return f"{row.trial}: {row.status}{_result(row)}"


def point_text(row: Row) -> str:
    """Return a trial's point on a line: each setting by its last part."""
    return ", ".join(f"{n.rpartition('.')[2]} {value_text(v)}" for n, v in row.values.items())


def folded(name: str, width: int) -> list[str]:
    """Return a name on lines of at most `width` characters, broken after hyphens if it can be."""
    lines = [""]
    for part in _parts(name):
        if lines[-1] and len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return lines


def _parts(name: str) -> list[str]:
    return re.findall(r"[^-]*-|[^-]+$", name) or [name]


def _empty(title: str) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, show_edge=False
    )
    table.add_column("trial")
    table.add_column("accuracy", no_wrap=True)
    for name in ("ε", "uplink", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _add(table: Table, row: Row) -> None:
    table.add_row(
        _Name(row.trial),
        percent(row.accuracy) if row.status == DONE else row.status,
        ABSENT if row.epsilon is None else f"{row.epsilon:.2f}",
        human_bytes(row.uplink_bytes),
        human_seconds(row.seconds),
    )


def _result(row: Row) -> str:
    if row.accuracy is None:
        return ""
    epsilon = "not private" if row.epsilon is None else f"epsilon {row.epsilon:.2f}"
    text = f", accuracy {percent(row.accuracy)} at round {row.rounds}"
    if row.status != DONE:
        return text
    return f"{text}, {epsilon}, {human_seconds(row.seconds)}"
