"""A sweep in the terminal: a live table where there is one, a line a trial elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType

from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from fedfuse_ray.report.units import ABSENT, human_bytes, human_seconds, percent, plain
from fedfuse_ray.sweeping.store import DONE, MISSING, Row

_SHOWN = 12


class LiveTable:
    """Shows trials as they run and end.

    Args:
        rows: All trials so far.
        total: How many there will be, where a search proposes them one by one.
        quiet: Show nothing.
    """

    def __init__(self, rows: Sequence[Row], *, total: int = 0, quiet: bool = False) -> None:
        self._rows = {row.trial: row for row in rows}
        self._ended = {row.trial for row in rows if row.status != MISSING}
        self._running: dict[str, str] = {}
        self._total = total
        self._quiet = quiet
        terminal = Console(stderr=True)
        self._console = Console()
        self._live = (
            Live(console=terminal, refresh_per_second=4, transient=True)
            if terminal.is_terminal and not quiet
            else None
        )

    def __enter__(self) -> LiveTable:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

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

    def advanced(self, name: str, round: int, total: int, accuracy: float) -> None:
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
            self.say(f"[{count}] {trial_line(row)}")
        self._draw()

    def _draw(self) -> None:
        if self._live:
            self._live.update(live_table(list(self._rows.values()), self._running, self._total))


def live_table(rows: Sequence[Row], running: Mapping[str, str], total: int = 0) -> Table:
    """Return the trials that run, then those that ended last, and how many are to come."""
    ended = [row for row in rows if row.status != MISSING and row.trial not in running]
    title = f"{len(ended)} of {max(total, len(rows))} trials ended"
    table = _empty(title)
    for name, state in running.items():
        table.add_row(escape(name), state, "", "", "", style="bold")
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
    return ", ".join(f"{n.rpartition('.')[2]} {plain(v)}" for n, v in row.values.items())


def _empty(title: str) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, show_edge=False
    )
    table.add_column("trial", overflow="fold")
    table.add_column("accuracy", no_wrap=True)
    for name in ("ε", "uplink", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _add(table: Table, row: Row) -> None:
    table.add_row(
        escape(row.trial),
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
